//! What small inputs become; whole ones are in tests/import.rs.

use super::{Fate, Input, Outcome, Source, import};

const SERVED: &str = "\
defaults
  mode tcp
frontend api
  bind 10.0.0.1:6443
  default_backend servers
backend servers
  server a 10.0.0.4:6443 check
";

fn proxy(text: &str) -> Outcome {
    import(&Input {
        haproxy: Some(Source {
            name: "haproxy.cfg",
            text,
        }),
        keepalived: Vec::new(),
        nodes: Vec::new(),
    })
}

fn addresses(instances: &str) -> Outcome {
    import(&Input {
        haproxy: None,
        keepalived: vec![Source {
            name: "k.conf",
            text: instances,
        }],
        nodes: Vec::new(),
    })
}

fn instance(name: &str, vrid: u8, rest: &str, addresses: &str) -> String {
    format!(
        "vrrp_instance {name} {{\n  interface eth0\n  virtual_router_id {vrid}\n  \
         unicast_src_ip 10.0.0.2\n  unicast_peer {{\n    10.0.0.3\n  }}\n{rest}\n  \
         virtual_ipaddress {{\n{addresses}\n  }}\n}}\n"
    )
}

#[test]
fn what_stands_after_a_condition_counts_again() {
    let outcome = proxy(&format!(".if defined(X)\nglobal\n.endif\n{SERVED}"));
    let lost: Vec<usize> = outcome
        .entries
        .iter()
        .filter(|entry| entry.fate == Fate::Lost)
        .map(|entry| entry.line)
        .collect();
    assert_eq!(lost, [1, 2, 3]);
    assert!(outcome.text.contains("10.0.0.4:6443"), "{}", outcome.text);
}

#[test]
fn an_address_that_is_bound_twice_is_listened_at_once() {
    let outcome = proxy(&SERVED.replace(":6443\n  default", ":6443,10.0.0.1:6443\n  default"));
    assert!(outcome.accepted, "{:?}\n{}", outcome.problems, outcome.text);
    assert_eq!(outcome.text.matches("\"10.0.0.1:6443\"").count(), 1);
}

#[test]
fn two_instances_of_one_file_are_two_addresses_whatever_their_vrid() {
    let one = instance("A", 51, "", "    10.0.0.10/24");
    let other = instance("B", 51, "", "    10.0.1.10/24").replace("eth0", "eth1");
    let text = addresses(&(one + &other)).text;
    assert!(
        text.contains("[vip.A]") && text.contains("[vip.B]"),
        "{text}"
    );
}

#[test]
fn a_password_is_cut_to_8_bytes_and_never_inside_a_letter() {
    let auth = "  authentication {\n    auth_type PASS\n    auth_pass aéééé\n  }";
    let text = addresses(&instance("A", 51, auth, "    10.0.0.10/24")).text;
    assert!(text.contains("key = \"aééé\""), "{text}");
}

#[test]
fn the_21st_address_is_said_to_be_lost() {
    let list: Vec<String> = (10..31)
        .map(|last| format!("    10.0.0.{last}/24"))
        .collect();
    let outcome = addresses(&instance("A", 51, "", &list.join("\n")));
    let lost: Vec<&str> = outcome
        .entries
        .iter()
        .filter(|entry| entry.fate == Fate::Lost)
        .map(|entry| entry.text.as_str())
        .collect();
    assert_eq!(lost, ["10.0.0.30/24"]);
}
