//! A name followed through a resolver on loopback that says what a test has it say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::config::load;
use crate::discovery::known::Finding;

/// What the resolver does with one question.
#[derive(Debug, Clone)]
enum Say {
    /// Addresses with this TTL, seconds.
    Addresses(&'static [&'static str], u32),
    /// The same behind an alias with this TTL of its own.
    Alias(u32, &'static [&'static str], u32),
    Code(RCODE),
    Truncated,
    /// The first half of an answer, then the end.
    Cut,
    /// Bytes that are no DNS.
    Noise,
    /// The answer to somebody else's question.
    Foreign,
    /// Nothing, ever.
    Silence,
}

#[derive(Debug, Default)]
struct Script {
    a: VecDeque<Say>,
    aaaa: VecDeque<Say>,
    asked: Vec<(String, &'static str)>,
}

/// A resolver; the last word of each list is said again and again.
struct Resolver {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Resolver {
    async fn start(a: Vec<Say>, aaaa: Vec<Say>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script {
            a: a.into(),
            aaaa: aaaa.into(),
            asked: Vec::new(),
        };
        let script = Arc::new(Mutex::new(script));
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, script }
    }

    /// From now on it says this of IPv4.
    fn now_says(&self, say: Say) {
        self.script.lock().unwrap().a = [say].into();
    }

    fn asked(&self) -> Vec<(String, &'static str)> {
        self.script.lock().unwrap().asked.clone()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await.unwrap();
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut question).await.unwrap();
    let packet = Packet::parse(&question).unwrap();
    assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
    let is_a = packet.questions[0].qtype == simple_dns::QTYPE::TYPE(simple_dns::TYPE::A);
    let say = {
        let mut script = script.lock().unwrap();
        let name = packet.questions[0].qname.to_string();
        script.asked.push((name, if is_a { "A" } else { "AAAA" }));
        let list = if is_a {
            &mut script.a
        } else {
            &mut script.aaaa
        };
        let next = list.pop_front().unwrap();
        if list.is_empty() {
            list.push_back(next.clone());
        }
        next
    };
    let answer = match &say {
        Say::Silence => std::future::pending().await,
        Say::Noise => vec![0xff; 7],
        Say::Addresses(addresses, ttl) => reply(&packet, "api.example", addresses, *ttl, None),
        Say::Alias(own, addresses, ttl) => {
            reply(&packet, "real.example", addresses, *ttl, Some(*own))
        }
        Say::Foreign => {
            let mut other = packet.clone();
            other.questions[0].qname = Name::new_unchecked("evil.example");
            reply(&other, "evil.example", &["10.6.6.6"], 60, None)
        }
        Say::Code(code) => {
            let mut reply = packet.clone().into_reply();
            *reply.rcode_mut() = *code;
            reply.build_bytes_vec().unwrap()
        }
        Say::Truncated => {
            let mut reply = packet.clone().into_reply();
            reply.set_flags(PacketFlag::TRUNCATION);
            reply.build_bytes_vec().unwrap()
        }
        Say::Cut => reply(&packet, "api.example", &["10.0.0.1"], 60, None),
    };
    let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(&answer);
    if matches!(say, Say::Cut) {
        framed.truncate(framed.len() / 2);
    }
    stream.write_all(&framed).await.unwrap();
}

fn reply(
    question: &Packet<'_>,
    owner: &str,
    addresses: &[&str],
    ttl: u32,
    alias: Option<u32>,
) -> Vec<u8> {
    let mut reply = question.clone().into_reply();
    let mut add = |owner: &str, ttl, rdata| {
        let name = Name::new_unchecked(owner).into_owned();
        let record = ResourceRecord::new(name, CLASS::IN, ttl, rdata);
        reply.answers.push(record);
    };
    // Not asked for, and believed by nobody.
    let stray = RData::A(A {
        address: u32::from_be_bytes([10, 6, 6, 6]),
    });
    add("stray.example", 1, stray);
    for address in addresses {
        let rdata = match address.parse().unwrap() {
            IpAddr::V4(ip) => RData::A(A {
                address: ip.to_bits(),
            }),
            IpAddr::V6(ip) => RData::AAAA(AAAA {
                address: ip.to_bits(),
            }),
        };
        add(owner, ttl, rdata);
    }
    if let Some(ttl) = alias {
        let target = Name::new_unchecked("real.example");
        add("api.example", ttl, RData::CNAME(CNAME(target)));
    }
    reply.build_bytes_vec().unwrap()
}

/// A name as lb.toml would have it followed.
fn question(resolvers: &[SocketAddr], more: &str) -> Question {
    let resolvers: Vec<String> = resolvers.iter().map(|r| format!("\"{r}\"")).collect();
    let resolvers = resolvers.join(", ");
    let text = format!(
        "[proxy.p]\nlisten = \":1\"\ndiscovery = {{ dns = {{ names = \"api.example:6443\", \
         resolvers = [{resolvers}], timeout = \"500ms\", min-interval = \"1s\"{more} }} }}\n"
    );
    let discovery = load(&text).unwrap().proxies.remove(0).discovery;
    let settings = discovery.dns.unwrap();
    Question {
        name: settings.names[0].clone(),
        settings,
        template: discovery.template,
        etc: PathBuf::from("/nowhere"),
    }
}

struct Follower {
    findings: mpsc::Receiver<Finding>,
    task: tokio::task::JoinHandle<()>,
}

impl Follower {
    fn start(question: Question) -> Self {
        let (sender, findings) = mpsc::channel(1);
        let task = tokio::spawn(follow(question, Reporter::new(0, 0, sender)));
        Self { findings, task }
    }

    async fn next(&mut self) -> Result<Vec<String>, String> {
        self.next_at().await.0
    }

    async fn next_at(&mut self) -> (Result<Vec<String>, String>, std::time::Instant) {
        let wait = tokio::time::timeout(Duration::from_secs(20), self.findings.recv());
        let finding = wait.await.expect("a finding").unwrap();
        let names = |servers: Vec<Server>| servers.into_iter().map(|s| s.name).collect();
        (finding.outcome.map(names), finding.at)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn found(addresses: &[&str]) -> Result<Vec<String>, String> {
    Ok(addresses.iter().map(|a| (*a).to_owned()).collect())
}

const NONE: Say = Say::Addresses(&[], 0);

#[tokio::test]
async fn addresses_of_both_families_are_servers_whatever_their_order() {
    let resolver = Resolver::start(
        vec![Say::Addresses(&["10.0.0.5", "10.0.0.4"], 60)],
        vec![Say::Alias(60, &["fd00::4"], 60)],
    )
    .await;
    let mut follower = Follower::start(question(&[resolver.address], ""));
    assert_eq!(
        follower.next().await,
        found(&["10.0.0.4:6443", "10.0.0.5:6443", "[fd00::4]:6443"])
    );
    let mut asked = resolver.asked();
    asked.sort();
    let name = || "api.example".to_owned();
    assert_eq!(asked, [(name(), "A"), (name(), "AAAA")]);
}

#[tokio::test]
async fn one_family_alone_is_asked_for_where_the_file_says_so() {
    let resolver =
        Resolver::start(vec![Say::Silence], vec![Say::Addresses(&["fd00::4"], 60)]).await;
    let mut follower = Follower::start(question(&[resolver.address], ", family = \"ipv6\""));
    assert_eq!(follower.next().await, found(&["[fd00::4]:6443"]));
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_shortest_ttl_is_over() {
    let resolver = Resolver::start(
        vec![
            Say::Alias(2, &["10.0.0.1"], 3600),
            Say::Addresses(&["10.0.0.2"], 0),
            Say::Addresses(&["10.0.0.3"], 3600),
        ],
        vec![NONE],
    )
    .await;
    let more = ", family = \"ipv4\", max-interval = \"2s\"";
    let mut follower = Follower::start(question(&[resolver.address], more));
    let (first, at) = follower.next_at().await;
    assert_eq!(first, found(&["10.0.0.1:6443"]));
    let (second, later) = follower.next_at().await;
    assert_eq!(second, found(&["10.0.0.2:6443"]));
    assert!(later.duration_since(at) >= Duration::from_secs(2));
    // A TTL of 0 is not taken at its word, and neither is an hour.
    let (third, last) = follower.next_at().await;
    assert_eq!(third, found(&["10.0.0.3:6443"]));
    assert!(last.duration_since(later) >= Duration::from_secs(1));
    let (_, end) = follower.next_at().await;
    assert!(end.duration_since(last) >= Duration::from_secs(2));
}

#[tokio::test]
async fn every_failure_is_told_as_what_it_is() {
    for (say, why) in [
        (Say::Code(RCODE::NameError), "no such name"),
        (
            Say::Code(RCODE::ServerFailure),
            "the resolver says SERVFAIL",
        ),
        (Say::Code(RCODE::Refused), "the resolver says REFUSED"),
        (Say::Truncated, "the answer is cut short"),
        (Say::Noise, "the answer is malformed"),
        (Say::Foreign, "the answer is to another question"),
        (Say::Silence, "no answer in time"),
    ] {
        let resolver = Resolver::start(vec![say], vec![NONE]).await;
        let mut follower = Follower::start(question(&[resolver.address], ""));
        let told = follower.next().await.unwrap_err();
        assert_eq!(told, format!("{}: {why}", resolver.address));
    }
    let resolver = Resolver::start(vec![Say::Cut], vec![NONE]).await;
    let mut follower = Follower::start(question(&[resolver.address], ""));
    let told = follower.next().await.unwrap_err();
    assert!(told.contains("eof") || told.contains("reset"), "{told}");
}

#[tokio::test]
async fn an_answer_without_addresses_is_no_server_at_all() {
    let resolver = Resolver::start(vec![NONE], vec![NONE]).await;
    let mut follower = Follower::start(question(&[resolver.address], ""));
    assert_eq!(follower.next().await, found(&[]));
}

#[tokio::test]
async fn a_resolver_that_stumbles_over_the_other_family_does_no_harm() {
    let broken = vec![Say::Code(RCODE::ServerFailure)];
    let resolver = Resolver::start(vec![Say::Addresses(&["10.0.0.1"], 1)], broken).await;
    let mut follower = Follower::start(question(&[resolver.address], ""));
    assert_eq!(follower.next().await, found(&["10.0.0.1:6443"]));
    // But when the family fails that has the servers, that is told.
    resolver.now_says(Say::Code(RCODE::ServerFailure));
    assert!(follower.next().await.is_err());
}

#[tokio::test]
async fn the_next_resolver_is_asked_when_one_is_dead_or_cannot_say() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let lame = Resolver::start(vec![Say::Code(RCODE::ServerFailure)], vec![NONE]).await;
    let silent = Resolver::start(vec![Say::Silence], vec![NONE]).await;
    let good = Resolver::start(vec![Say::Addresses(&["10.0.0.1"], 60)], vec![NONE]).await;
    let all = [closed, lame.address, silent.address, good.address];
    let mut follower = Follower::start(question(&all, ", family = \"ipv4\""));
    assert_eq!(follower.next().await, found(&["10.0.0.1:6443"]));
    assert_eq!(lame.asked().len(), 1);
    assert_eq!(silent.asked().len(), 1);
}

#[tokio::test]
async fn a_failure_is_followed_by_another_question_soon() {
    let resolver = Resolver::start(
        vec![
            Say::Code(RCODE::ServerFailure),
            Say::Addresses(&["10.0.0.1"], 60),
        ],
        vec![NONE],
    )
    .await;
    let mut follower = Follower::start(question(&[resolver.address], ", family = \"ipv4\""));
    assert!(follower.next().await.is_err());
    assert_eq!(follower.next().await, found(&["10.0.0.1:6443"]));
}

#[tokio::test]
async fn the_hosts_own_table_comes_before_any_resolver() {
    let dir = std::env::temp_dir().join(format!("lbd-etc-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("hosts"), "10.0.0.7 api.example\n").unwrap();
    let mut asked = question(&["127.0.0.1:1".parse().unwrap()], "");
    asked.settings.resolvers.clear();
    asked.etc.clone_from(&dir);
    let mut follower = Follower::start(asked);
    let first = follower.next().await;
    std::fs::write(dir.join("new"), "10.0.0.8 api.example\n").unwrap();
    std::fs::rename(dir.join("new"), dir.join("hosts")).unwrap();
    let second = follower.next().await;
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(first, found(&["10.0.0.7:6443"]));
    assert_eq!(second, found(&["10.0.0.8:6443"]));
}

#[test]
fn no_beginning_of_an_answer_passes_for_the_whole() {
    let bytes = message::question("api.example", Record::A).unwrap();
    let packet = Packet::parse(&bytes).unwrap();
    let whole = reply(&packet, "api.example", &["10.0.0.1", "10.0.0.2"], 60, None);
    let read = |bytes: &[u8]| message::answer(bytes, "api.example", Record::A);
    assert_eq!(read(&whole).unwrap().addresses.len(), 2);
    for end in 0..whole.len() {
        let outcome = read(&whole[..end]);
        assert!(outcome.is_err(), "{end}: {outcome:?}");
    }
}
