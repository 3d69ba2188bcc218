//! `sysbox events`: what happens to containers, as it happens.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use sysbox_mgr::api::proto::{Event, EventsRequest};

use super::client::Client;
use super::report::{print, short};

/// Prints events until the stream ends: at once, at the manager's end, or never.
pub fn run(all: bool, no_follow: bool, json: bool) -> anyhow::Result<()> {
    let request = EventsRequest { after: 0, all: all || no_follow, no_follow };
    Client::connect()?.events(request, |event| {
        print(&if json { format!("{}\n", json!(event)) } else { line(&event) })
    })
}

fn line(event: &Event) -> String {
    let mut line = format!("{} {}", time(event.unix_ms), event.kind);
    for part in [short(&event.container_id), &event.container_name, &event.text] {
        if !part.is_empty() {
            line.push(' ');
            line.push_str(part);
        }
    }
    line + "\n"
}

/// UTC by RFC 3339.
fn time(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_what_and_who() {
        let event = Event {
            number: 1,
            unix_ms: 1_700_000_000_123,
            kind: "exited".into(),
            container_id: "c1".into(),
            container_name: "web".into(),
            text: String::new(),
        };
        assert_eq!(line(&event), "2023-11-14T22:13:20.123Z exited c1 web\n");
    }
}
