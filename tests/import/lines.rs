//! Files made by chance, with all that puts lines in, leaves them out or repeats them: each line of
//! the input has one verdict, whatever keepalived or HAProxy would make of the file.

use lbd::import::{Input, Outcome, Source, import};

use super::Dice;

const DIRECTIVES: &[&str] = &[
    "interface eth0",
    "priority 10",
    "priority $P",
    "virtual_router_id ${N}",
    "advert_int 1",
    "10.0.${N}.1/24",
    "10.0.0.1/24 dev $IF label x",
    "unicast_src_ip 10.0.0.2",
    "script \"/bin/x {a} $IF\"",
    "auth_pass $P",
    "router_id ${UNKNOWN}",
    "weight ${_RANDOM 1 2}",
    "x ${_PWD} $M",
    "$M",
    "${M}",
    "$L",
    "$E",
    "$M behind",
    "$N=7",
    "$IF=eth1",
    "$E=",
    "$SELF=${SELF}",
    "${SELF}",
    "nopreempt",
    "include /etc/x/*.conf",
    "a { b }",
    "c \\",
];
const BLOCKS: &[&str] = &[
    "vrrp_instance V${N}",
    "vrrp_instance W",
    "virtual_ipaddress",
    "unicast_peer",
    "track_script",
    "vrrp_script chk",
    "global_defs",
    "authentication",
    "",
];
const PREFIXES: &[&str] = &[
    "@lb1 ",
    "@^lb1 ",
    "@lb2\t",
    "@ ",
    "@lb1 @lb2 ",
    "~SEQ(N, 1, 2) ",
    "~SEQx(N, 8, 11) ",
    "~SEQ(N, $P) ",
    "~SEQ(N, 3, 1, 2) ",
    "~LST({N, K}, {1,2}, {3}) ",
    "~LST(IF, eth0, eth1) ~SEQ(N, 2) ",
    "~LST(IF) ",
];
const SHARP: &[&str] = &[
    "global",
    "defaults",
    "defaults d",
    "frontend f",
    "backend b",
    "listen l",
    "resolvers r",
    "mode tcp",
    "bind \":${PORT}\"",
    "bind \":${PORT-7000}\"",
    "bind :${PORT}",
    "bind :6443",
    "default_backend b",
    "server a 10.0.0.1:6443 check",
    "server b \"${HOST}:1\" \"${WORDS[*]}\"",
    "setenv PORT 6443",
    "presetenv HOST 10.0.0.2",
    "setenv WORDS \"check inter 1s\"",
    "setenv E \"\"",
    "unsetenv PORT HOST",
    "resetenv PORT",
    "resetenv",
    ".if defined(PORT)",
    ".if streq(\"$HOST\",x) && !feature(Y)",
    ".if 0",
    ".if",
    ".elif 1",
    ".elif version_atleast(2.4)",
    ".else",
    ".endif",
    ".endif",
    ".endif",
    ".notice \"x\"",
    ".alert y",
    ".diag z",
    ".what",
    "\"\"",
    "\"${WORDS[*]}\"",
    "timeout client 5s",
    "no option tcpka",
    "maxconn 5",
    "acl x src 10.0.0.0/8",
];

fn one<'a>(dice: &mut Dice, list: &[&'a str]) -> &'a str {
    list[dice.below(list.len())]
}

/// Lines of keepalived.conf.
fn keepalived(dice: &mut Dice) -> String {
    let mut text = String::new();
    let mut open = 0;
    for _ in 0..dice.below(40) {
        let mut line = String::new();
        while dice.below(4) == 0 {
            line.push_str(one(dice, PREFIXES));
        }
        match dice.below(8) {
            0 | 1 => {
                line.push_str(one(dice, BLOCKS));
                line.push_str(" {");
                open += 1;
            }
            2 if open > 0 => {
                line.push('}');
                open -= 1;
            }
            3 => {
                line.push_str(["$M=", "$L= ", "$M=first "][dice.below(3)]);
                for _ in 0..dice.below(4) {
                    line.push_str("\\\n");
                    if dice.below(3) == 0 {
                        line.push_str(one(dice, PREFIXES));
                    }
                    line.push_str(one(dice, DIRECTIVES));
                    line.push(' ');
                }
            }
            4 => line = ["! why", "# \\", "", "  "][dice.below(4)].to_owned(),
            _ => line.push_str(one(dice, DIRECTIVES)),
        }
        text.push_str(&line);
        text.push_str(["\n", "\n", " # c\n", "\t! d\n"][dice.below(4)]);
    }
    text
}

fn haproxy(dice: &mut Dice) -> String {
    let lines = (0..dice.below(40)).map(|_| one(dice, SHARP).to_owned());
    let lines: Vec<String> = lines.collect();
    lines.join(["\n", "\n  ", " # c\n"][dice.below(3)]) + "\n"
}

fn both(haproxy: &str, keepalived: &str) -> Outcome {
    import(&Input {
        haproxy: Some(Source {
            name: "h.cfg",
            text: haproxy,
        }),
        keepalived: vec![Source {
            name: "lb1.conf",
            text: keepalived,
        }],
        nodes: Vec::new(),
    })
}

/// What has no verdict, or several.
fn unjudged(outcome: &Outcome, file: &str, text: &str, comments: &[char]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let plain = line.split(comments).next().unwrap_or("");
        let is_brace = plain.chars().all(|c| "{} \t\\".contains(c));
        let is_this = |line: usize, name: &str| line == number && name == file;
        let entries = outcome.entries.iter();
        let count = entries.filter(|e| is_this(e.line, &e.file)).count();
        if count > 1 || (count == 0 && !is_brace) {
            found.push(format!("{file}:{number} {line}: {count} verdicts"));
        }
    }
    found
}

#[test]
fn every_line_of_a_file_made_by_chance_has_one_verdict() {
    let mut dice = Dice(0x5eed_1e55_0b5e_55ed);
    let mut judged = 0;
    for round in 0..1_000 {
        let (cfg, conf) = (haproxy(&mut dice), keepalived(&mut dice));
        let outcome = both(&cfg, &conf);
        let mut wrong = unjudged(&outcome, "h.cfg", &cfg, &['#']);
        wrong.extend(unjudged(&outcome, "lb1.conf", &conf, &['#', '!']));
        assert!(
            wrong.is_empty(),
            "round {round}: {wrong:?}\n{cfg}\n--\n{conf}"
        );
        judged += outcome.entries.len();
    }
    assert!(judged > 20_000, "{judged}");
}
