//! Ports for servers that are stopped and started again at the same address.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the ports that Linux gives to outgoing connections, so that nothing takes a port while its server is stopped.
const FIRST: u16 = 11_000;
const COUNT: u16 = 20_000;

/// A free port of 127.0.0.1 that no other call in this process returns.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` successive free ports of 127.0.0.1 that no other call in this process returns.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another process starts elsewhere.
    let offset = (std::process::id() * 61 % u32::from(COUNT)) as u16;
    loop {
        let first = FIRST + (offset + NEXT.fetch_add(count, Ordering::Relaxed)) % COUNT;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}
