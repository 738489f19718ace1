//! The messages that have a number of their own: journald's MESSAGE_ID, by which a reader finds
//! them whatever their text, and systemd/lbd.catalog says what they mean and what to do. Those that
//! tell of something in the proxy process also become events of the record. Pure.

use crate::ipc::event::{EventKind, Happening};

use super::event::Message;

/// What a message becomes in the record: its kind, and from where to where unless its fields say.
pub(crate) type Told = (EventKind, Option<(&'static str, &'static str)>);

/// One message.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The text, constant in the code.
    pub(crate) text: &'static str,
    /// MESSAGE_ID; never changed once it was released.
    pub(crate) id: u128,
    /// The event it becomes when the proxy process says it.
    pub(crate) told: Option<Told>,
}

impl Entry {
    const fn new(text: &'static str, id: u128, told: Option<Told>) -> Self {
        Self { text, id, told }
    }
}

/// The entry of a message.
pub(crate) fn entry(text: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.text == text)
}

/// The event that a message of the proxy process becomes, if any.
pub(crate) fn happening(message: &Message) -> Option<Happening> {
    let (kind, change) = entry(&message.text)?.told?;
    let field = |name: &str| {
        let mut fields = message.fields.iter();
        fields
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.clone())
    };
    let subject = match (field("proxy"), field("server")) {
        (Some(proxy), Some(server)) => Some(format!("{proxy}/{server}")),
        (proxy, server) => proxy.or(server),
    };
    let own = change.map(|(from, to)| (from.to_owned(), to.to_owned()));
    let (own_from, own_to) = own.unzip();
    let (from, to) = (field("from").or(own_from), field("to").or(own_to));
    let why = field("reason").or_else(|| field("error"));
    let reason = if from.is_some() && to.is_some() {
        why.unwrap_or_default()
    } else {
        told(message, why)
    };
    Some(Happening {
        kind,
        subject,
        from,
        to,
        reason,
    })
}

/// `limit reached: clients wait (key=max-connections)`.
fn told(message: &Message, why: Option<String>) -> String {
    let mut text = message.text.clone();
    if let Some(why) = why {
        text.push_str(": ");
        text.push_str(&why);
    }
    let said = ["proxy", "server", "reason", "error"];
    let others = message.fields.iter().filter(|(key, _)| !said.contains(key));
    let others: Vec<String> = others
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !others.is_empty() {
        text.push_str(&format!(" ({})", others.join(", ")));
    }
    text
}

/// All of them.
#[expect(
    clippy::unreadable_literal,
    reason = "written as journalctl prints them: whoever searches for one finds it here"
)]
pub(crate) const ENTRIES: &[Entry] = &[
    Entry::new("state changed", 0x09c2aac8ad3f45fa8750c9f82fabf522, None),
    Entry::new(
        "server down",
        0x448f4e14fabd4aa2bfe460f04b966f7e,
        Some((EventKind::Health, None)),
    ),
    Entry::new(
        "server up",
        0xd60cb87b643d48efb6dbcf6f3eb3e16f,
        Some((EventKind::Health, Some(("down", "up")))),
    ),
    Entry::new(
        "server unresponsive",
        0x4782e049fcf748b48b4d72cf518cdc56,
        Some((EventKind::Health, Some(("down", "unresponsive")))),
    ),
    Entry::new(
        "server alive, not ready",
        0x690e19c6cf494c6bb8f92a28f3aa8f6c,
        Some((EventKind::Health, Some(("down", "not ready")))),
    ),
    Entry::new(
        "check is not authorized, counted as ready",
        0x1e45dd51b84a48a2a4491546315b33c2,
        Some((EventKind::Health, None)),
    ),
    Entry::new(
        "changed files of a check cannot be used, the former stay in force",
        0xc34da2bc71c84835ac874d6ff394ef8f,
        Some((EventKind::Health, None)),
    ),
    Entry::new(
        "established connections are closed",
        0x14a63949b62449b5ae896a527ae0b8c0,
        Some((EventKind::Health, None)),
    ),
    Entry::new(
        "server ejected",
        0x7cf73814a2a94fdda048e52ef4959c33,
        Some((EventKind::Ejection, Some(("used", "ejected")))),
    ),
    Entry::new(
        "server no longer ejected",
        0x5bb779e146334d1eb0247c6d11d7c429,
        Some((EventKind::Ejection, Some(("ejected", "used")))),
    ),
    Entry::new(
        "server up, not believed yet",
        0xbf99a6b0ff6b457989be30af176e3e8a,
        Some((EventKind::Ejection, Some(("up", "held back")))),
    ),
    Entry::new(
        "server believed again",
        0xb4c113b92c464d38b148d296e15c21ea,
        Some((EventKind::Ejection, Some(("held back", "used")))),
    ),
    Entry::new(
        "servers that were held back are used",
        0xb5f9a4650a1b4112920807c369fd0d9e,
        Some((EventKind::Ejection, None)),
    ),
    Entry::new(
        "servers that were held back are no longer used",
        0x59c534beb8be4175ae38559bdcd0434a,
        Some((EventKind::Ejection, None)),
    ),
    Entry::new(
        "server changed by order",
        0x3f0a4257167b45ef8db67928dfb4312f,
        None,
    ),
    Entry::new(
        "servers discovered",
        0x14a9cb1064c54f9b952c69b901cce236,
        Some((EventKind::Discovery, None)),
    ),
    Entry::new(
        "servers are discovered again",
        0x636d6f9f934240c7b2f89a0c29e79213,
        Some((EventKind::Discovery, None)),
    ),
    Entry::new(
        "no servers discovered, known ones stay",
        0xbc1a727688834416bd2749c8e05257f7,
        Some((EventKind::Discovery, None)),
    ),
    Entry::new(
        "server discovered and left out",
        0xb4c27c3ca2b2443faef4f62ae922dcf2,
        Some((EventKind::Discovery, None)),
    ),
    Entry::new(
        "server no longer discovered stays",
        0xae5c4cac84e8433c9fff4f8095a88aa2,
        Some((EventKind::Discovery, None)),
    ),
    Entry::new(
        "server cannot be added",
        0xc0f97b3cf89b4265a067a8aa25577eaa,
        Some((EventKind::Discovery, None)),
    ),
    Entry::new(
        "server added",
        0x35fc1b3a4802458c920b3f192379d8dd,
        Some((EventKind::Discovery, Some(("absent", "present")))),
    ),
    Entry::new(
        "server removed",
        0x3af8db129ed74bf3b2952329cd5d27af,
        Some((EventKind::Discovery, Some(("present", "absent")))),
    ),
    Entry::new(
        "limit reached",
        0x17ae389c12154b94bceac43487b01878,
        Some((EventKind::Limit, None)),
    ),
    Entry::new(
        "limit left",
        0xc71afef6b3a64b5b95ab44035500cb05,
        Some((EventKind::Limit, None)),
    ),
    Entry::new(
        "open files of this process are used up",
        0xc6e37ddbb991426d9ad280cf174e453c,
        Some((EventKind::Limit, None)),
    ),
    Entry::new(
        "open files of the machine are used up",
        0x2281538b5e7b4fa0aade657317afbcfa,
        Some((EventKind::Limit, None)),
    ),
    Entry::new(
        "the kernel has no memory for another connection",
        0x6195c485e5684b6bba65ef9cdcaba3b1,
        Some((EventKind::Limit, None)),
    ),
    Entry::new(
        "local ports towards a server are used up",
        0x7df554d2fdd3480eb794edc37b59989e,
        Some((EventKind::Limit, None)),
    ),
    Entry::new(
        "max-connections is more than open files allow",
        0x06e2e7f323cd49349a0b4b9fc7f29017,
        None,
    ),
    Entry::new(
        "access log lines dropped",
        0x33ae08c12d0846c08045cfbefc2791a0,
        Some((EventKind::Log, None)),
    ),
    Entry::new(
        "log lines dropped",
        0x88f2d05c97f84da09cabc843cd30908a,
        Some((EventKind::Log, None)),
    ),
    Entry::new(
        "log level changed",
        0xd2c6d93d27044638801b48463809a9b3,
        None,
    ),
    Entry::new("packet rejected", 0x03157e46a2174ad5bd1f1b440f155e35, None),
    Entry::new(
        "another host answers for our address",
        0x0face5f736e94a8dbc503943f9d66e67,
        None,
    ),
    Entry::new(
        "address deleted by somebody else",
        0x2dd826e2c462488fb2cbaa171636bf44,
        None,
    ),
    Entry::new(
        "this node's own address was removed by somebody else",
        0xe298826c7826438ab469b32db4ae0eab,
        None,
    ),
    Entry::new(
        "no advert can be sent, on no interface",
        0xf1fccbd93ad84c3898d9093ef21cb820,
        None,
    ),
    Entry::new(
        "adverts to peer are lost: one-way",
        0x57d8620b594040be828f4c28686f244c,
        None,
    ),
    Entry::new(
        "the former active node is alive on this LAN but its adverts do not arrive",
        0x048b0d2aee074dcabd56f46f475bcf41,
        None,
    ),
    Entry::new(
        "peer advertises other addresses",
        0xa51d6909fb614195b2385aabc72d0ff1,
        None,
    ),
    Entry::new(
        "message of the peer channel not believed",
        0x4b26f264a99643ef8ed20a3170038954,
        None,
    ),
    Entry::new(
        "peer's clock is apart from ours",
        0xe350728633494e00828dc27a785f851c,
        None,
    ),
    Entry::new(
        "track script fails",
        0xc2d7e8364b684cad8044e113b95c3aba,
        None,
    ),
    Entry::new(
        "tracked file cannot be read: it counts as failed",
        0xeba98264a3d546ba8743f2a908f2e70c,
        None,
    ),
    Entry::new(
        "tracked interface is not there: it counts as down",
        0xcfed001a23ff49e5aadf4d64f74dd95f,
        None,
    ),
    Entry::new(
        "notify program failed",
        0x947eb8b054fb43c1a1a04470a53d996d,
        None,
    ),
    Entry::new("failover ordered", 0x9a4644e086454b02a80ce4d1f06d6827, None),
    Entry::new("route announced", 0xf1eda33b811e41689ee89b36632f70c7, None),
    Entry::new("route withdrawn", 0x080c4e156b254fa7b7445e2e41e50a69, None),
    Entry::new("proxy lost", 0x6e1a7d46016c41da8a6f66dc459625be, None),
    Entry::new("proxy hangs", 0xa9cf5685313743e68621cbbca72997b2, None),
    Entry::new(
        "proxy works again",
        0xfdf0582489134acd9f2c7850307f818d,
        None,
    ),
    Entry::new(
        "proxy gets no processor time",
        0x548a67cf5ff74324afd6812642dbfb06,
        None,
    ),
    Entry::new(
        "hung proxy killed",
        0x131c829deec14a1e9b6a88254424fb7d,
        None,
    ),
    Entry::new(
        "proxy keeps ending",
        0xc6adabe33646407c8af88032bb2a988d,
        None,
    ),
    Entry::new("proxy connected", 0x573a7cdf295d4b67bdd04a38232368e5, None),
    Entry::new("proxy adopted", 0xf271764a5b5a4e8ea748cd490f670f03, None),
    Entry::new(
        "keeper lost, serving goes on",
        0xfb5a451df7bc44129ae34c04722b1cc1,
        None,
    ),
    Entry::new("keeper started", 0xdbfe6694f1de44b692bfd84978528c44, None),
    Entry::new("stopping", 0x31e7e2f298904f7f8a6bc71ef721bcb2, None),
    Entry::new(
        "real-time scheduling not permitted",
        0x6d9c3f66969f4fde9be796360dc39571,
        None,
    ),
    Entry::new(
        "memory not locked",
        0xa67f60fc6d4d4640961fe6a0eb656d26,
        None,
    ),
    Entry::new(
        "kept server states are unreadable, set aside",
        0xba06c8b3a7d44396a5316976db900ff2,
        None,
    ),
    Entry::new(
        "kept events are damaged, set aside",
        0x21484d991ae644efaf1531463b39ee9f,
        None,
    ),
    Entry::new(
        "events are not kept",
        0x3b69940277114219a13e4c8e975dfe9b,
        None,
    ),
];

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
