//! A server's own list of its connections, and how long each stood on it.

use std::{collections::HashMap, net::SocketAddr, str::FromStr};

use capture::schema::ListedRow;
use serde_json::Value;

use super::{
    path::FieldPath,
    request::{Asked, Failure, Target},
};

/// Where in the body the list stands, and where in an entry the peer's address: `.connections[].peer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerPath {
    text: String,
    list: FieldPath,
    peer: FieldPath,
}

impl FromStr for PeerPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (list, peer) = text.split_once("[]").ok_or_else(|| {
            format!("{text:?}: expected a path through a list, such as .connections[].peer")
        })?;
        let or_itself = |path: &str| if path.is_empty() { "." } else { path }.parse();
        Ok(Self { text: text.to_owned(), list: or_itself(list)?, peer: or_itself(peer)? })
    }
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Listing {
    pub(crate) entries: u64,
    /// Entries without a readable address and port.
    pub(crate) unreadable: u64,
    /// How often each peer stands there.
    peers: HashMap<SocketAddr, u32>,
}

/// Whom to ask, and where in the answer the peers stand.
#[derive(Clone, Debug)]
pub(crate) struct ListingPoller {
    pub(crate) target: Target,
    pub(crate) path: PeerPath,
}

impl ListingPoller {
    pub(crate) async fn ask(&self) -> Asked<Listing> {
        self.target.get("application/json", |body| self.path.read(body)).await
    }
}

impl PeerPath {
    fn read(&self, body: &[u8]) -> Result<Listing, Failure> {
        let no_list =
            |found: &str| Failure::NoList { path: self.text.clone(), found: found.into() };
        let body: Value =
            serde_json::from_slice(body).map_err(|error| Failure::NotJson(error.to_string()))?;
        let items = self.list.find(&body).ok_or_else(|| no_list("the body has no such field"))?;
        let items = items.as_array().ok_or_else(|| no_list("what stands there is no list"))?;
        let mut listing = Listing { entries: items.len() as u64, ..Listing::default() };
        for item in items {
            let peer = self.peer.find(item).and_then(Value::as_str);
            match peer.and_then(|text| text.parse::<SocketAddr>().ok()) {
                Some(peer) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    *listing.peers.entry(peer).or_default() += 1;
                }
                None => listing.unreadable += 1,
            }
        }
        if listing.entries > 0 && listing.peers.is_empty() {
            return Err(no_list("no entry has an address such as 192.0.2.1:50000 there"));
        }
        Ok(listing)
    }
}

/// Follows the entries from answer to answer.
#[derive(Debug)]
pub(crate) struct Tracker {
    url: String,
    standing: HashMap<SocketAddr, ListedRow>,
}

impl Tracker {
    pub(crate) fn new(url: String) -> Self {
        Self { url, standing: HashMap::new() }
    }

    /// Takes an answer and when it was asked for; returns the rows of those that are gone from it.
    pub(crate) fn take(&mut self, listing: &Listing, start: i64, end: i64) -> Vec<ListedRow> {
        for (peer, &copies) in &listing.peers {
            let row = self.standing.entry(*peer).or_insert_with(|| ListedRow {
                url: self.url.clone().into(),
                remote_address: peer.ip(),
                remote_port: u32::from(peer.port()),
                first_start_mono_ns: start,
                first_end_mono_ns: end,
                last_start_mono_ns: start,
                last_end_mono_ns: end,
                gone_mono_ns: None,
                copies,
            });
            (row.last_start_mono_ns, row.last_end_mono_ns) = (start, end);
            row.copies = row.copies.max(copies);
        }
        let gone = self.standing.extract_if(|peer, _| !listing.peers.contains_key(peer));
        gone.map(|(_, row)| ListedRow { gone_mono_ns: Some(end), ..row }).collect()
    }

    /// Those that stood on the last answer, too.
    pub(crate) fn rest(self) -> Vec<ListedRow> {
        self.standing.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, body: &str) -> Result<Listing, String> {
        let path: PeerPath = path.parse().unwrap();
        path.read(body.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_of_several_shapes_are_read() {
        let body = r#"{"connections": [{"peer": "10.0.0.1:5"}, {"peer": "[::ffff:10.0.0.1]:5"},
                       {"peer": "[::1]:7"}, {"peer": "gone"}, {}]}"#;
        let listing = read(".connections[].peer", body).unwrap();
        assert_eq!((listing.entries, listing.unreadable), (5, 2));
        assert_eq!(listing.peers[&"10.0.0.1:5".parse().unwrap()], 2);
        assert_eq!(read("[]", r#"["10.0.0.1:5"]"#).unwrap().peers.len(), 1);
        assert_eq!(read(".connections[].peer", r#"{"connections": []}"#).unwrap().entries, 0);
    }

    #[test]
    fn what_is_no_list_says_what_is_there() {
        let lead = ".a[].peer is no list of connections with the peer's address and port: ";
        for (body, why) in [
            ("{}", "the body has no such field"),
            (r#"{"a": 3}"#, "what stands there is no list"),
            (
                r#"{"a": [{"peer": "10.0.0.1"}]}"#,
                "no entry has an address such as 192.0.2.1:50000 there",
            ),
        ] {
            assert_eq!(read(".a[].peer", body).unwrap_err(), format!("{lead}{why}"));
        }
        assert!(".connections.peer".parse::<PeerPath>().unwrap_err().contains("through a list"));
    }

    #[test]
    fn an_entry_is_one_row_for_as_long_as_it_stands() {
        let listing = |body: &str| read("[]", body).unwrap();
        let mut tracker = Tracker::new("u".into());
        let (both, one) = (r#"["10.0.0.1:5", "10.0.0.2:6"]"#, r#"["10.0.0.2:6", "10.0.0.2:6"]"#);
        assert_eq!(tracker.take(&listing(both), 1, 2), []);
        assert_eq!(tracker.take(&listing(both), 3, 4), []);
        let gone = tracker.take(&listing(one), 5, 6);
        assert_eq!(gone.len(), 1);
        let row = &gone[0];
        assert_eq!((row.remote_port, row.gone_mono_ns, row.copies), (5, Some(6), 1));
        assert_eq!((row.first_start_mono_ns, row.last_start_mono_ns), (1, 3));
        let rest = tracker.rest();
        assert_eq!((rest.len(), rest[0].copies, rest[0].gone_mono_ns), (1, 2, None));
        assert_eq!((rest[0].first_end_mono_ns, rest[0].last_end_mono_ns), (2, 6));
    }
}
