//! The shards that a balancer's health body lists.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::path::{FieldPath, whole};

/// One shard, as the balancer sees it. What the body does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardReport {
    pub(crate) name: String,
    /// Port of its address: by it the kernel's count is found.
    pub(crate) port: Option<u16>,
    /// Name or IP of its address, without brackets: tells shards of one port apart.
    #[serde(default)]
    pub(crate) host: Option<String>,
    pub(crate) connections: i64,
    pub(crate) capacity: Option<i64>,
    pub(crate) available: Option<i64>,
}

/// Characters of a name that are shown; the rest of a table's row is numbers.
const NAME: usize = 16;

/// The shards at `path`: objects with `connections`, and `capacity` and `available` where they have
/// them. Whatever else stands there is no list of shards.
pub(crate) fn read(body: &Value, path: &FieldPath) -> Vec<ShardReport> {
    let items = path.find(body).and_then(Value::as_array);
    let shards = items.into_iter().flatten().enumerate();
    shards.map(|(index, item)| one(index, item)).collect::<Option<_>>().unwrap_or_default()
}

fn one(index: usize, item: &Value) -> Option<ShardReport> {
    let number = |key: &str| item.get(key).and_then(whole);
    let connections = number("connections")?;
    let name = ["name", "id"].into_iter().find_map(|key| item.get(key)?.as_str());
    let capacity = number("capacity");
    let (host, port) = address(item);
    Some(ShardReport {
        name: name.map_or_else(|| format!("shard {}", index + 1), shown),
        port,
        host,
        connections,
        capacity: capacity.or_else(|| Some(connections + number("available")?)),
        available: number("available").or_else(|| Some(capacity? - connections)),
    })
}

/// Host and port from `address`, `url` and the like, or the port from `port`.
fn address(item: &Value) -> (Option<String>, Option<u16>) {
    let texts = ["address", "addr", "url", "endpoint", "target", "host"];
    let of_text = texts.into_iter().find_map(|key| {
        let text = item.get(key)?.as_str()?;
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = authority.split(['/', '?']).next()?;
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((Some(host.to_owned()), Some(port.parse().ok()?)))
    });
    let port = || u16::try_from(item.get("port").and_then(whole)?).ok();
    of_text.unwrap_or_else(|| (None, port()))
}

/// A terminal's control characters are no part of a name.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shards(body: &Value) -> Vec<ShardReport> {
        read(body, &".shards".parse().unwrap())
    }

    #[test]
    fn the_usual_shape_is_read() {
        let body = json!({"shards": [
            {"name": "a\u{1b}[2J", "address": "127.0.0.1:3002", "connections": 5, "capacity": 10,
             "available": 4},
            {"url": "ws://[::1]:3003/ws", "connections": 7, "available": 3},
            {"port": 3004, "connections": 1},
        ]});
        let shard =
            |name: &str, (host, port): (Option<&str>, u16), connections, capacity, available| {
                ShardReport {
                    name: name.into(),
                    port: Some(port),
                    host: host.map(str::to_owned),
                    connections,
                    capacity,
                    available,
                }
            };
        assert_eq!(
            shards(&body),
            [
                shard("a[2J", (Some("127.0.0.1"), 3002), 5, Some(10), Some(4)),
                shard("shard 2", (Some("::1"), 3003), 7, Some(10), Some(3)),
                shard("shard 3", (None, 3004), 1, None, None),
            ]
        );
    }

    #[test]
    fn what_is_no_list_of_shards_is_none() {
        for body in [
            json!({}),
            json!({"shards": 3}),
            json!({"shards": [{"free": 1}]}),
            json!({"shards": [{"connections": i64::MAX, "available": 1}]}),
            json!({"shards": [{"connections": i64::MIN, "capacity": 1}]}),
        ] {
            assert_eq!(shards(&body), []);
        }
    }
}
