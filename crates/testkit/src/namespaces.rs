//! A small internet on one machine: a network namespace for each host, all joined by a bridge in a namespace of its own.
//!
//! Links lose packets, are slow, or carry one way only; the rest of the machine sees nothing of it. Needs root, `ip`,
//! `nft` and `tc`; the kernel need not know netem, which is why nothing here delays (see [`crate::Relay`]).

use crate::tools::run;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which packets of a host's link are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// None.
    Nothing,
    /// So many of a hundred, in each direction.
    Percent(u8),
    /// All that go to the host; what it says arrives.
    TowardsHost,
    /// All that come from the host; it hears everything.
    FromHost,
    /// All.
    Everything,
}

/// A bridge that clients are on, and hosts around it. Gone when dropped.
#[derive(Debug)]
pub struct Internet {
    name: String,
    hosts: u8,
}

/// Tells internets of one process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Internet {
    /// A bridge with so many hosts.
    ///
    /// # Errors
    /// What is missing on this machine.
    pub fn with_hosts(hosts: u8) -> Result<Internet, String> {
        run(&["nft", "--version"])?;
        run(&["tc", "-V"])?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let internet = Internet { name: format!("sb{}x{number}", std::process::id()), hosts };
        let hub = internet.hub();
        run(&["ip", "netns", "add", &hub])?;
        internet.inside(&hub, &["ip", "link", "set", "lo", "up"])?;
        internet.inside(&hub, &["ip", "link", "add", "bridge", "type", "bridge"])?;
        internet.inside(&hub, &["ip", "address", "add", "10.77.0.1/24", "dev", "bridge"])?;
        internet.inside(&hub, &["ip", "link", "set", "bridge", "up"])?;
        for at in 0..hosts {
            internet.add_host(at)?;
        }
        Ok(internet)
    }

    fn add_host(&self, at: u8) -> Result<(), String> {
        let (hub, host, link) = (self.hub(), self.host(at), format!("to-{at}"));
        run(&["ip", "netns", "add", &host])?;
        let peer = ["peer", "name", "uplink", "netns", &host];
        self.inside(&hub, &[&["ip", "link", "add", &link, "type", "veth"][..], &peer[..]].concat())?;
        self.inside(&hub, &["ip", "link", "set", &link, "master", "bridge", "up"])?;
        let address = format!("{}/24", self.address(at));
        self.inside(&host, &["ip", "link", "set", "lo", "up"])?;
        self.inside(&host, &["ip", "address", "add", &address, "dev", "uplink"])?;
        self.inside(&host, &["ip", "link", "set", "uplink", "up"])?;
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn host(&self, at: u8) -> String {
        format!("{}-{at}", self.name)
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, at: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, at + 2)
    }

    /// The words before a command that runs on a host.
    #[must_use]
    pub fn on_host(&self, at: u8) -> Vec<String> {
        ["ip", "netns", "exec", &self.host(at)].map(str::to_owned).to_vec()
    }

    /// The words before a command that runs where clients are.
    #[must_use]
    pub fn on_hub(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.hub()].map(str::to_owned).to_vec()
    }

    fn inside(&self, namespace: &str, words: &[&str]) -> Result<String, String> {
        run(&[&["ip", "netns", "exec", namespace], words].concat())
    }

    /// Lets a host's link lose packets from now on.
    ///
    /// # Errors
    /// What the firewall says.
    pub fn lose(&self, at: u8, loss: Loss) -> Result<(), String> {
        let random = |percent: u8| format!("numgen random mod 100 < {percent} drop");
        let (towards, from) = match loss {
            Loss::Nothing => (None, None),
            Loss::Percent(percent) => (Some(random(percent)), Some(random(percent))),
            Loss::TowardsHost => (Some("drop".to_owned()), None),
            Loss::FromHost => (None, Some("drop".to_owned())),
            Loss::Everything => (Some("drop".to_owned()), Some("drop".to_owned())),
        };
        // Each direction is lost where it arrives: what is dropped where it is sent is an error to its sender.
        let address = self.address(at);
        self.filter(&self.host(at), "link", towards.map(|rule| format!("iifname uplink {rule}")))?;
        let table = format!("from{at}");
        self.filter(&self.hub(), &table, from.map(|rule| format!("ip saddr {address} {rule}")))
    }

    /// Gives a namespace's table this one rule for what comes in.
    fn filter(&self, namespace: &str, table: &str, rule: Option<String>) -> Result<(), String> {
        let mut script = format!("add table inet {table}\ndelete table inet {table}\n");
        if let Some(rule) = rule {
            script.push_str(&format!(
                "add table inet {table}\n\
                 add chain inet {table} arriving {{ type filter hook input priority 0; policy accept; }}\n\
                 add rule inet {table} arriving {rule}\n"
            ));
        }
        self.inside(namespace, &["nft", &script]).map(|_| ())
    }

    /// Lets a host's link carry so many bits a second at most, in each direction.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn limit_rate(&self, at: u8, bits_per_s: u64) -> Result<(), String> {
        let (rate, link) = (format!("{bits_per_s}bit"), format!("to-{at}"));
        for (namespace, device) in [(self.host(at), "uplink"), (self.hub(), &*link)] {
            let limits = ["rate", &rate, "burst", "32kb", "latency", "200ms"];
            let words = [&["tc", "qdisc", "replace", "dev", device, "root", "tbf"][..], &limits[..]].concat();
            self.inside(&namespace, &words)?;
        }
        Ok(())
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for name in (0..self.hosts).map(|at| self.host(at)).chain([self.hub()]) {
            // Those that were never made can't be removed.
            let _gone = run(&["ip", "netns", "delete", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Internet, Loss};
    use crate::tools::{find_tool, or_skip, run};

    #[test]
    fn hosts_are_reached_lose_packets_and_are_reached_again() {
        let Some(internet) = or_skip("packet loss", Internet::with_hosts(2)) else { return };
        let answers = |at: u8| -> bool {
            let address = internet.address(at).to_string();
            // Bash connects to ports without further tools; nobody listens, so an answer is a refusal.
            let script = format!("exec 3<>/dev/tcp/{address}/9");
            let words = internet.on_hub();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let refused = run(&[&words[..], &["timeout", "1", "bash", "-c", &script]].concat());
            refused.unwrap_err().contains("refused")
        };
        assert!(find_tool("bash").is_some() && answers(0) && answers(1));
        for loss in [Loss::TowardsHost, Loss::FromHost, Loss::Everything] {
            internet.lose(0, loss).unwrap();
            assert!(!answers(0), "{loss:?}");
            assert!(answers(1), "{loss:?} is of one link");
        }
        internet.lose(0, Loss::Percent(10)).unwrap();
        internet.lose(0, Loss::Nothing).unwrap();
        internet.limit_rate(0, 8_000_000).unwrap();
        assert!(answers(0));
    }
}
