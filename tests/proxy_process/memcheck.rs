//! The proxy process under valgrind's memcheck: no invalid access, no use of what was never
//! written, nothing lost. valgrind 3.19 does not know landlock and seccomp and answers as a kernel
//! without them would, so the process runs without that confinement here.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use super::{Keeper, config, dial, front, wait_for};

const BULK: usize = 600_000;

/// By a connection's first byte: resets, sends bulk, finishes first, or sends back.
fn moody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Clients that break off are a part of it.
            std::thread::spawn(move || answer(stream).unwrap_or(()));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut word = [0];
    if stream.read(&mut word)? == 0 {
        return Ok(());
    }
    match word[0] {
        b'r' => lbd::net::tcp::reset_on_close(&stream)?,
        b'b' => stream.write_all(&vec![7; BULK])?,
        b'f' => {
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        _ => {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest)?;
            stream.write_all(&rest)?;
        }
    }
    Ok(())
}

fn hear(address: SocketAddr, word: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = dial(address);
    stream.write_all(word)?;
    stream.shutdown(Shutdown::Write)?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    Ok(heard)
}

#[test]
fn valgrind_finds_no_mistake_with_memory_in_the_process() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let report = std::env::temp_dir().join(format!("lbd-memcheck-{}", std::process::id()));
    let log = format!("--log-file={}", report.display());
    let under = [
        "valgrind",
        "--error-exitcode=9",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite",
        &log,
    ];
    let mut keeper = Keeper::start_under("memcheck", &under);
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[moody(), moody()]), listener);
    // Under valgrind beside other cases a check may take longer than it is given.
    wait_for("two servers", || {
        (keeper.status().proxies[0].usable == 2).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(hear(address, b"e12345").unwrap(), b"12345");
        assert_eq!(hear(address, b"b").unwrap().len(), BULK);
        assert!(hear(address, b"r").is_err());
        assert_eq!(hear(address, b"f").unwrap(), b"");
        drop(dial(address));
        let leaver = dial(address);
        lbd::net::tcp::reset_on_close(&leaver).unwrap();
    }
    let totals = keeper.status().proxies[0].totals.clone();
    assert!(totals.bytes_spliced > 0, "{totals:?}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(keeper.proxy.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let code = keeper.wait_end();
    let said = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(&report).unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("ERROR SUMMARY: 0 errors"), "{said}");
}
