//! The driver of one host name: ask, tell, wait as long as the answer holds. Over TCP alone, which
//! every resolver has to speak (RFC 7766): no answer is cut short, none can be forged from beside
//! the path, and the sandbox goes on without datagrams.

mod message;
mod system;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::message::{Answer, AnswerError, Record};
use super::pause::Pause;
use super::task::Reporter;
use crate::config::discovery::{Dns, DnsName, Family, Template};
use crate::config::model::Server;

pub(super) use self::system::FILES as SYSTEM_FILES;

/// The largest of the host's own files that is read, bytes.
const SYSTEM_BYTES_MAX: u64 = 1024 * 1024;

/// What one task follows.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) name: DnsName,
    pub(super) settings: Dns,
    pub(super) template: Template,
    /// Where `hosts` and `resolv.conf` are; /etc outside tests.
    pub(super) etc: PathBuf,
}

/// Why a resolver brought nothing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}: no answer in time")]
    Late(SocketAddr),
    #[error("{0}: {1}")]
    Io(SocketAddr, #[source] io::Error),
    #[error("{0}: {1}")]
    Answer(SocketAddr, #[source] AnswerError),
}

impl AskError {
    /// Whether other resolvers would say the same.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Answer(_, AnswerError::NoSuchName))
    }
}

/// The addresses of one family: the last good answer, and what the last question brought.
#[derive(Debug, Default)]
struct Half {
    addresses: Vec<IpAddr>,
    error: Option<String>,
}

/// The host's own files as they could be read last: under the sandbox one that was replaced by a
/// rename is out of reach.
#[derive(Debug, Default)]
struct System {
    hosts: String,
    resolv_conf: String,
}

impl System {
    fn refresh(&mut self, etc: &Path) {
        refresh(&mut self.hosts, &etc.join(system::HOSTS));
        refresh(&mut self.resolv_conf, &etc.join(system::RESOLV_CONF));
    }
}

/// Follows the name for ever.
pub(super) async fn follow(question: Question, reporter: Reporter) {
    let settings = &question.settings;
    let mut system = System::default();
    let mut pause = Pause::default();
    let (mut v4, mut v6) = (Half::default(), Half::default());
    loop {
        if settings.resolvers.is_empty() {
            system.refresh(&question.etc);
        }
        let (outcome, ttl) = match question.hosts(&system) {
            Some(addresses) => (Ok(addresses), Some(Duration::ZERO)),
            None => {
                let resolvers = question.resolvers(&system);
                question.resolve(&resolvers, &mut v4, &mut v6).await
            }
        };
        let outcome = outcome.map(|addresses| question.servers(addresses));
        if !reporter.say(outcome).await {
            return;
        }
        let wait = match ttl {
            Some(ttl) => {
                pause.over();
                ttl.clamp(settings.min_interval, settings.max_interval)
            }
            None => pause.next().min(settings.max_interval),
        };
        tokio::time::sleep(wait).await;
    }
}

impl Question {
    /// What the host's own table says, if it has the name and is to be asked at all.
    fn hosts(&self, system: &System) -> Option<Vec<IpAddr>> {
        let found = system::hosts(&system.hosts, &self.name.host);
        let found: Vec<IpAddr> = found.into_iter().filter(|ip| self.wants(*ip)).collect();
        (!found.is_empty()).then_some(found)
    }

    fn wants(&self, ip: IpAddr) -> bool {
        match self.settings.family {
            Family::Any => true,
            Family::Ipv4 => ip.is_ipv4(),
            Family::Ipv6 => ip.is_ipv6(),
        }
    }

    fn resolvers(&self, system: &System) -> Vec<SocketAddr> {
        if self.settings.resolvers.is_empty() {
            system::resolvers(&system.resolv_conf)
        } else {
            self.settings.resolvers.clone()
        }
    }

    /// Asks for what is wanted. With the addresses comes how long they hold; `None` after a
    /// failure.
    async fn resolve(
        &self,
        resolvers: &[SocketAddr],
        v4: &mut Half,
        v6: &mut Half,
    ) -> (Result<Vec<IpAddr>, String>, Option<Duration>) {
        let ask = async |record: Record, half: &mut Half| match self.ask(resolvers, record).await {
            Ok(answer) => {
                half.addresses = answer.addresses;
                half.error = None;
                Some(answer.ttl)
            }
            Err(error) => {
                half.error = Some(error.to_string());
                None
            }
        };
        let (ttl4, ttl6) = match self.settings.family {
            Family::Any => tokio::join!(ask(Record::A, v4), ask(Record::Aaaa, v6)),
            Family::Ipv4 => (ask(Record::A, v4).await, None),
            Family::Ipv6 => (None, ask(Record::Aaaa, v6).await),
        };
        let halves = [(&*v4, ttl4), (&*v6, ttl6)];
        let ttl = halves.iter().filter_map(|(_, ttl)| *ttl).min();
        let mut addresses = v4.addresses.clone();
        addresses.extend(&v6.addresses);
        // Many resolvers stumble over one family of a name that has only the other.
        let matters = |half: &Half| !half.addresses.is_empty() || addresses.is_empty();
        let mut errors = halves.iter().filter(|(half, _)| matters(half));
        match errors.find_map(|(half, _)| half.error.clone()) {
            Some(error) => (Err(error), None),
            None => (Ok(addresses), ttl),
        }
    }

    /// One resolver after the other, until one has an answer.
    async fn ask(&self, resolvers: &[SocketAddr], record: Record) -> Result<Answer, AskError> {
        let mut last = None;
        for resolver in resolvers {
            let asked = self.ask_one(*resolver, record);
            let outcome = match tokio::time::timeout(self.settings.timeout, asked).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Err(AskError::Late(*resolver)),
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Err(last.unwrap_or(AskError::Late(nobody)))
    }

    async fn ask_one(&self, resolver: SocketAddr, record: Record) -> Result<Answer, AskError> {
        let failed = |error| AskError::Io(resolver, error);
        let wrong = |error| AskError::Answer(resolver, error);
        let question = message::question(&self.name.host, record).map_err(wrong)?;
        let bytes = exchange(resolver, &question).await.map_err(failed)?;
        message::answer(&bytes, &self.name.host, record).map_err(wrong)
    }

    /// In an order of their own: resolvers turn theirs round.
    fn servers(&self, mut addresses: Vec<IpAddr>) -> Vec<Server> {
        addresses.retain(|ip| !ip.is_unspecified() && !ip.is_multicast());
        addresses.sort_unstable();
        addresses.dedup();
        let server = |ip: IpAddr| {
            let address = SocketAddr::new(ip, self.name.port);
            self.template.server(address.to_string(), address)
        };
        addresses.into_iter().map(server).collect()
    }
}

/// One message there and one back, each behind its length (RFC 1035 §4.2.2).
async fn exchange(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(resolver).await?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Reads a small file of this host again; one that cannot be read leaves what it said before.
fn refresh(text: &mut String, path: &Path) {
    let read = || {
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() || meta.len() > SYSTEM_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        std::fs::read(path)
    };
    match read() {
        Ok(bytes) => *text = String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => text.clear(),
        Err(error) => {
            let key = path.display();
            tracing::debug!(%key, %error, "file cannot be read again");
        }
    }
}

#[cfg(test)]
mod tests;
