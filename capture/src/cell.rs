//! How a Rust value becomes a cell of a column: the types that row structs may use.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt32Builder,
    UInt64Builder,
};

use crate::schema::Kind;

/// A field type of a row struct.
pub trait Cell {
    const KIND: Kind;
    const NULLABLE: bool;
    type Builder: ArrayBuilder + Default;

    fn append(&self, builder: &mut Self::Builder);
}

macro_rules! plain_cell {
    ($type:ty, $kind:ident, $builder:ty) => {
        impl Cell for $type {
            const KIND: Kind = Kind::$kind;
            const NULLABLE: bool = false;
            type Builder = $builder;

            fn append(&self, builder: &mut $builder) {
                builder.append_value(*self);
            }
        }

        impl Cell for Option<$type> {
            const KIND: Kind = Kind::$kind;
            const NULLABLE: bool = true;
            type Builder = $builder;

            fn append(&self, builder: &mut $builder) {
                builder.append_option(*self);
            }
        }
    };
}

plain_cell!(i64, I64, Int64Builder);
plain_cell!(u64, U64, UInt64Builder);
plain_cell!(u32, U32, UInt32Builder);
plain_cell!(f64, F64, Float64Builder);
plain_cell!(bool, Bool, BooleanBuilder);

/// Words from a fixed list: `passive`, `close_wait`, `rst`.
impl Cell for &'static str {
    const KIND: Kind = Kind::Text;
    const NULLABLE: bool = false;
    type Builder = StringBuilder;

    fn append(&self, builder: &mut StringBuilder) {
        builder.append_value(self);
    }
}

impl Cell for Option<&'static str> {
    const KIND: Kind = Kind::Text;
    const NULLABLE: bool = true;
    type Builder = StringBuilder;

    fn append(&self, builder: &mut StringBuilder) {
        builder.append_option(*self);
    }
}

/// Text that the recorder got from elsewhere.
impl Cell for Cow<'static, str> {
    const KIND: Kind = Kind::Text;
    const NULLABLE: bool = false;
    type Builder = StringBuilder;

    fn append(&self, builder: &mut StringBuilder) {
        builder.append_value(self);
    }
}

impl Cell for Option<Cow<'static, str>> {
    const KIND: Kind = Kind::Text;
    const NULLABLE: bool = true;
    type Builder = StringBuilder;

    fn append(&self, builder: &mut StringBuilder) {
        builder.append_option(self.as_deref());
    }
}

/// A task's name as the kernel keeps it: up to 15 bytes, ended by a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comm(pub [u8; 16]);

impl Cell for Option<Comm> {
    const KIND: Kind = Kind::Text;
    const NULLABLE: bool = true;
    type Builder = StringBuilder;

    fn append(&self, builder: &mut StringBuilder) {
        let name = self.as_ref().map(|Comm(bytes)| {
            String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
        });
        builder.append_option(name);
    }
}

/// Written as text straight into the column; v4-mapped addresses as IPv4.
impl Cell for IpAddr {
    const KIND: Kind = Kind::Text;
    const NULLABLE: bool = false;
    type Builder = StringBuilder;

    fn append(&self, builder: &mut StringBuilder) {
        // Writing into a StringBuilder only grows memory, it cannot fail.
        let _ = write!(builder, "{}", self.to_canonical());
        builder.append_value("");
    }
}

impl Cell for Option<IpAddr> {
    const KIND: Kind = Kind::Text;
    const NULLABLE: bool = true;
    type Builder = StringBuilder;

    fn append(&self, builder: &mut StringBuilder) {
        match self {
            Some(address) => address.append(builder),
            None => builder.append_null(),
        }
    }
}
