//! Reads protobuf without definitions, by the numbers of the fields.

/// A message's fields, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<(u64, Field)>);

#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Message {
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let field = match key & 7 {
                0 => Field::Number(varint(&mut rest)?),
                1 => Field::Number(u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?)),
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    Field::Bytes(rest.split_off(..length)?.to_vec())
                }
                5 => Field::Number(u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?).into()),
                _ => return None,
            };
            fields.push((key >> 3, field));
        }
        Some(Self(fields))
    }

    /// The messages of a repeated field.
    #[must_use]
    pub fn all(&self, number: u64) -> Vec<Message> {
        let bytes = self.0.iter().filter(|(found, _)| *found == number);
        bytes
            .filter_map(|(_, field)| match field {
                Field::Bytes(bytes) => Self::parse(bytes),
                Field::Number(_) => None,
            })
            .collect()
    }

    /// Of a path of fields the messages at its end.
    #[must_use]
    pub fn at(&self, path: &[u64]) -> Vec<Message> {
        path.iter().fold(vec![self.clone()], |messages, number| {
            messages.iter().flat_map(|message| message.all(*number)).collect()
        })
    }

    #[must_use]
    pub fn number(&self, number: u64) -> Option<u64> {
        self.0.iter().find_map(|(found, field)| match field {
            Field::Number(value) if *found == number => Some(*value),
            _ => None,
        })
    }

    #[must_use]
    pub fn text(&self, number: u64) -> Option<String> {
        self.0.iter().find_map(|(found, field)| match field {
            Field::Bytes(bytes) if *found == number => String::from_utf8(bytes.clone()).ok(),
            _ => None,
        })
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
