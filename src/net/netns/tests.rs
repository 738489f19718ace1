//! Real namespaces, where the kernel lets this user make them.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use super::*;
use wire::{Plug, Wire};

fn permitted() -> bool {
    let permitted = nix::unistd::geteuid().is_root() && Namespace::new(&[]).is_ok();
    if !permitted {
        println!("skipped: making namespaces needs root");
    }
    permitted
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(172, 16, 0, last))
}

fn host(wire: &mut Wire, name: &str, last: u8) -> Namespace {
    let namespace = Namespace::new(&[Path::new("/run")]).unwrap();
    let plug = Plug {
        host: name,
        interface: "eth0",
        ip: ip(last),
        prefix: 24,
    };
    wire.attach(&namespace, &plug).unwrap();
    namespace
}

#[test]
fn two_hosts_on_a_wire_reach_each_other_until_a_cable_is_pulled() {
    if !permitted() {
        return;
    }
    let mut wire = Wire::new().unwrap();
    let (a, b) = (host(&mut wire, "a", 2), host(&mut wire, "b", 3));
    let listener = a.run(|| TcpListener::bind((ip(2), 80)).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |bound_ms| {
        let bound = std::time::Duration::from_millis(bound_ms);
        b.run(|| TcpStream::connect_timeout(&address, bound))
            .unwrap()
    };
    // Long enough for a SYN to be sent again.
    assert!(connect(5_000).is_ok());
    assert!(a.rtnl().unwrap().addresses().unwrap().contains(&ip(2)));
    assert!(!b.rtnl().unwrap().addresses().unwrap().contains(&ip(2)));
    wire.plug("a", false).unwrap();
    assert!(connect(500).is_err());
}

#[test]
fn private_directories_are_empty_and_not_shared() {
    if !permitted() {
        return;
    }
    let (a, b) = (
        Namespace::new(&[Path::new("/run")]).unwrap(),
        Namespace::new(&[Path::new("/run")]).unwrap(),
    );
    a.run(|| fs::write("/run/lbd-netns-test", "a"))
        .unwrap()
        .unwrap();
    assert!(!b.run(|| Path::new("/run/lbd-netns-test").exists()).unwrap());
    assert!(!Path::new("/run/lbd-netns-test").exists());
}

#[test]
fn a_dropped_namespace_takes_its_processes_along() {
    if !permitted() {
        return;
    }
    let namespace = Namespace::new(&[]).unwrap();
    let mut child = namespace.spawn(Command::new("sleep").arg("600")).unwrap();
    let found = namespace.processes().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].pid.as_raw().unsigned_abs(), child.id());
    drop(namespace);
    let status = child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
}

#[test]
fn a_thread_that_goes_inside_leaves_the_processes_there_alone() {
    if !permitted() {
        return;
    }
    let namespace = Namespace::new(&[]).unwrap();
    let mut child = namespace.spawn(Command::new("sleep").arg("600")).unwrap();
    let thread = namespace.thread("visitor", || ()).unwrap();
    thread.join().unwrap().unwrap();
    assert_eq!(namespace.processes().unwrap().len(), 1);
    drop(namespace);
    child.wait().unwrap();
}
