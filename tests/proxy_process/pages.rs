//! The HTTP listener of a real process, with clients who ask for nothing, for ever.

use super::*;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Slow clients at once.
const SLOW: usize = 200;
/// Questions while they are there.
const QUESTIONS: usize = 40;
/// An answer takes milliseconds; a debug build on a busy machine takes longer. Where a slow client
/// can keep a place for its second, each takes seconds, and 200 of them 25.
const PROMPT: Duration = Duration::from_millis(750);
/// The slowest: also one whose SYN was lost.
const PATIENT: Duration = Duration::from_secs(3);

fn with_pages(front: SocketAddr, pages: SocketAddr, servers: &[SocketAddr]) -> String {
    let listen = format!("listen = \"{pages}\"");
    config(front, servers).replace("listen = \"off\"", &listen)
}

fn get(address: SocketAddr, head: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code.unwrap_or(0), body.to_owned()))
}

/// Clients that come again as soon as they are sent away: a third says nothing, a third a byte of a
/// head now and then, the rest asks and doesn't read.
fn dawdle(address: SocketAddr, end: &AtomicBool, sent_away: &AtomicUsize, seated: &AtomicUsize) {
    let come = |kind: usize| {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nonblocking(true).ok()?;
        let first: &[u8] = match kind % 3 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nHost: x\r\nx: ",
            _ => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        (&stream).write_all(first).ok().map(|()| stream)
    };
    let mut all: Vec<Option<TcpStream>> = (0..SLOW).map(come).collect();
    while !end.load(Ordering::Relaxed) {
        for (kind, slot) in all.iter_mut().enumerate() {
            let gone = match (slot.as_mut(), kind % 3) {
                (None, _) => true,
                (Some(stream), 0) => stream.read(&mut [0]).is_ok(),
                (Some(stream), 1) => stream.write_all(b"x").is_err(),
                // Whether it was answered or sent away shows only to one who reads.
                (Some(stream), _) => stream
                    .peek(&mut [0])
                    .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock),
            };
            if gone {
                sent_away.fetch_add(1, Ordering::Relaxed);
                *slot = come(kind);
            }
        }
        let here = all.iter().filter(|slot| slot.is_some()).count();
        seated.store(here, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_hundred_slow_clients_delay_neither_probes_nor_scrapes() {
    let mut keeper = Keeper::start("slow-clients");
    let (listener, front) = front();
    let pages = port::held();
    keeper.bring_up(&with_pages(front, pages, &[echo()]), listener);
    wait_for("pages", || get(pages, "GET /livez HTTP/1.0\r\n\r\n").ok());
    let (end, sent_away, seated) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let waits = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| dawdle(pages, &end, &sent_away, &seated));
        wait_for("slow clients", || {
            (seated.load(Ordering::Relaxed) >= SLOW * 9 / 10).then_some(())
        });
        let ended = std::panic::catch_unwind(|| {
            for question in 0..QUESTIONS {
                let (path, content) = match question % 2 {
                    0 => ("/readyz", "ok\n"),
                    _ => ("/metrics", "\nlbd_process_ready 1\n"),
                };
                let begun = clock::now();
                let (code, body) =
                    get(pages, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
                waits.lock().unwrap().push(clock::now() - begun);
                assert_eq!(code, 200, "{path}: {body}");
                assert!(body.contains(content), "{path}: {body}");
            }
        });
        end.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
    let mut waits = waits.into_inner().unwrap();
    waits.sort();
    let (half, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("answers took {half:?}, at most {worst:?}; {sent_away:?} were sent away");
    assert!(half < PROMPT && worst < PATIENT, "{waits:?}");
    // The places are few, the slow ones many.
    assert!(
        sent_away.load(Ordering::Relaxed) > SLOW / 2,
        "{sent_away:?}"
    );
    // They cost descriptors for the time that they stay and no longer.
    let open = || {
        let dir = format!("/proc/{}/fd", keeper.proxy.id());
        std::fs::read_dir(dir).unwrap().count()
    };
    wait_for("places that are free again", || {
        (open() < 100).then_some(())
    });
}

#[test]
fn a_browser_that_asks_for_a_foreign_name_reads_nothing_and_programs_may_use_any() {
    let mut keeper = Keeper::start("names");
    let (listener, front) = front();
    let pages = port::held();
    let text = with_pages(front, pages, &[echo()])
        .replace("[limits]", "names = [\"LB.example.com.\"]\n[limits]");
    keeper.bring_up(&text, listener);
    let ask = |path: &str, host: &str, rest: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{rest}\r\n");
        wait_for("an answer", || get(pages, &head).ok())
    };
    let browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept-Language: en\r\n";
    let all = [
        "/",
        "/status",
        "/status.json",
        "/status.txt",
        "/events.json",
        "/metrics",
    ];
    let own = nix::sys::utsname::uname().unwrap();
    let own = own.nodename().to_str().unwrap().to_owned();
    let foreign = format!("evil.example:{}", pages.port());
    for probe in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(ask(probe, &foreign, browser).0, 200, "{probe}");
    }
    for path in all {
        let (code, body) = ask(path, &foreign, browser);
        assert_eq!(code, 421, "{path}: {body}");
        assert!(
            body.starts_with("This node doesn't know itself as \"evil.example:"),
            "{body}"
        );
        assert!(body.contains("[metrics]\nnames = ["), "{body}");
        assert!(
            !body.contains("backend") && !body.contains("127.0.0.1"),
            "{body}"
        );
        for host in [
            &pages.to_string(),
            "localhost:1",
            "lb.example.com:9633",
            &own,
        ] {
            assert_eq!(ask(path, host, browser).0, 200, "{path} {host}");
        }
        // Prometheus and the like.
        let program = "User-Agent: Prometheus/3.5.0\r\nAccept: text/plain\r\n";
        assert_eq!(
            ask(path, "lb1.prod.example.net:9633", program).0,
            200,
            "{path}"
        );
    }
}
