//! Whole numbers in as few bytes as they need: a base for all of them, and what each exceeds it by.

/// Stands for "not there" in a slice that is to be packed. No time, port or count is ever so low.
pub(crate) const NONE: i64 = i64::MIN;

/// The values of one column for one stretch of rows.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    base: i64,
    values: Values,
}

/// The highest value of each width stands for "not there".
#[derive(Clone, Debug)]
enum Values {
    Same(Option<i64>),
    One(Box<[u8]>),
    Two(Box<[u16]>),
    Four(Box<[u32]>),
    Eight(Box<[i64]>),
}

impl Packed {
    /// `NONE` is what is not there.
    pub(crate) fn new(values: &[i64]) -> Self {
        let there = || values.iter().copied().filter(|value| *value != NONE);
        let (least, most) = there().fold((i64::MAX, i64::MIN), |(l, m), v| (l.min(v), m.max(v)));
        if least > most {
            return Self { base: 0, values: Values::Same(None) };
        }
        let range = most.abs_diff(least);
        if range == 0 && there().count() == values.len() {
            return Self { base: 0, values: Values::Same(Some(least)) };
        }
        let packed = if range < u64::from(u8::MAX) {
            Values::One(pack(values, least, u8::MAX, |excess| excess as u8))
        } else if range < u64::from(u16::MAX) {
            Values::Two(pack(values, least, u16::MAX, |excess| excess as u16))
        } else if range < u64::from(u32::MAX) {
            Values::Four(pack(values, least, u32::MAX, |excess| excess as u32))
        } else {
            return Self { base: 0, values: Values::Eight(values.into()) };
        };
        Self { base: least, values: packed }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<i64> {
        let excess = match &self.values {
            Values::Same(value) => return *value,
            Values::One(all) => unless(all[index].into(), u8::MAX.into()),
            Values::Two(all) => unless(all[index].into(), u16::MAX.into()),
            Values::Four(all) => unless(all[index].into(), u32::MAX.into()),
            Values::Eight(all) => unless(all[index], NONE),
        };
        excess.map(|excess| self.base + excess)
    }
}

#[inline]
fn unless(value: i64, none: i64) -> Option<i64> {
    (value != none).then_some(value)
}

fn pack<T: Copy>(values: &[i64], least: i64, none: T, narrow: impl Fn(u64) -> T) -> Box<[T]> {
    let narrow = |value: &i64| if *value == NONE { none } else { narrow(value.abs_diff(least)) };
    values.iter().map(narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn assert_unpacks(values: &[i64]) {
        let packed = Packed::new(values);
        for (index, value) in values.iter().enumerate() {
            assert_eq!(packed.get(index), (*value != NONE).then_some(*value), "{packed:?}");
        }
    }

    #[test]
    fn every_width_at_its_edges() {
        for range in [0, 1, 253, 254, 255, 256, 65_534, 65_535, 65_536, u32::MAX.into()] {
            for base in [0, -7, 1_000_000_000_000, i64::MAX - range - 1, i64::MIN + 1] {
                assert_unpacks(&[base, base + range, base + range / 2]);
                assert_unpacks(&[base, NONE, base + range - range.min(1), base + range]);
            }
        }
        assert_unpacks(&[NONE, NONE]);
        assert_unpacks(&[5, 5, 5]);
        assert_unpacks(&[5, NONE, 5]);
        assert_unpacks(&[i64::MIN + 1, i64::MAX, NONE]);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            values in prop::collection::vec(prop_oneof![Just(NONE), any::<i64>(), -300..300i64], 1..50),
        ) {
            assert_unpacks(&values);
        }
    }
}
