//! The bytes of a question and of its answer. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

/// There is one question per connection, so nothing has to be told apart.
const ID: u16 = 0x1bd;
/// A chain of aliases longer than this leads nowhere.
const ALIASES_MAX: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Record {
    const fn kind(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
        }
    }
}

/// What a resolver knows; it may know that there is no such address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    /// The shortest of all that it rests on; zero where there is none.
    pub(super) ttl: Duration,
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    /// No bytes of DNS.
    #[error("the answer is malformed")]
    Malformed,
    /// It answers something else.
    #[error("the answer is to another question")]
    Foreign,
    /// It was cut short, which over TCP it has no reason to be.
    #[error("the answer is cut short")]
    Truncated,
    /// NXDOMAIN.
    #[error("no such name")]
    NoSuchName,
    /// Any other failure, by its name in the standards.
    #[error("the resolver says {0}")]
    Refused(String),
    /// No name that can be asked for.
    #[error("the name cannot be asked for")]
    Name,
}

/// A question with recursion desired.
pub(super) fn question(host: &str, record: Record) -> Result<Vec<u8>, AnswerError> {
    let name = Name::new(host).map_err(|_long| AnswerError::Name)?;
    let mut packet = Packet::new_query(ID);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = QTYPE::TYPE(record.kind());
    let question = Question::new(name, kind, CLASS::IN.into(), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(|_long| AnswerError::Name)
}

/// Reads the answer to [`question`].
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the standards' lists a few matter"
)]
pub(super) fn answer(bytes: &[u8], host: &str, record: Record) -> Result<Answer, AnswerError> {
    let packet = Packet::parse(bytes).map_err(|_bad| AnswerError::Malformed)?;
    let same = |question: &Question<'_>| {
        is_name(&question.qname, host) && question.qtype == QTYPE::TYPE(record.kind())
    };
    let is_ours = packet.id() == ID
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.questions.first().is_none_or(same);
    if !is_ours {
        return Err(AnswerError::Foreign);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(AnswerError::NoSuchName),
        other => return Err(AnswerError::Refused(rcode(other))),
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Err(AnswerError::Truncated);
    }
    Ok(collect(&packet, host, record))
}

/// The addresses of the name, along its aliases; records of other names mean nothing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the standards' lists a few matter"
)]
fn collect(packet: &Packet<'_>, host: &str, record: Record) -> Answer {
    let mut owner = host.to_owned();
    let mut ttl: Option<u32> = None;
    let shorter = |ttl: Option<u32>, other: u32| Some(ttl.map_or(other, |ttl| ttl.min(other)));
    for _ in 0..ALIASES_MAX {
        let alias = packet
            .answers
            .iter()
            .find_map(|answer| match &answer.rdata {
                RData::CNAME(target) if is_name(&answer.name, &owner) => {
                    Some((target.0.to_string(), answer.ttl))
                }
                _ => None,
            });
        let Some((target, its_ttl)) = alias else {
            break;
        };
        owner = target;
        ttl = shorter(ttl, its_ttl);
    }
    let mut addresses = Vec::new();
    let of_owner = packet.answers.iter();
    for answer in of_owner.filter(|answer| is_name(&answer.name, &owner)) {
        let address = match (&answer.rdata, record) {
            (RData::A(a), Record::A) => IpAddr::from(Ipv4Addr::from(a.address)),
            (RData::AAAA(a), Record::Aaaa) => IpAddr::from(Ipv6Addr::from(a.address)),
            _ => continue,
        };
        addresses.push(address);
        ttl = shorter(ttl, answer.ttl);
    }
    Answer {
        addresses,
        ttl: Duration::from_secs(ttl.unwrap_or(0).into()),
    }
}

fn is_name(name: &Name<'_>, host: &str) -> bool {
    let name = name.to_string();
    let plain = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
    plain(&name) == plain(host)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the standards' lists a few matter"
)]
fn rcode(code: RCODE) -> String {
    match code {
        RCODE::FormatError => "FORMERR".to_owned(),
        RCODE::ServerFailure => "SERVFAIL".to_owned(),
        RCODE::NotImplemented => "NOTIMP".to_owned(),
        RCODE::Refused => "REFUSED".to_owned(),
        other => format!("{other:?}"),
    }
}
