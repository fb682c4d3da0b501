//! What an owner asks of whoever places a version: redundancy, and how far apart its holders stand.
//!
//! It is signed as part of the version, so that repair and renewal, years later and by other machines, enforce what the
//! owner asked for and not what a configuration says by then. It says what must hold, never how: choosing providers is
//! for `stewardship`, which refuses what can't be met.

use crate::codec::{DecodeError, Reader, Writer};
use seedbank_erasure::Scheme;

/// How far something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Not at all.
    Ignore,
    /// As far as there are providers for it.
    Prefer,
    /// Always: without enough providers the placement is refused.
    Require,
}

/// How far no two fragments of a segment may share something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distinct {
    /// The operator, as providers declare it.
    pub operators: Spread,
    /// The /24 (IPv4) or /48 (IPv6) network.
    pub networks: Spread,
    /// The region, as providers declare it.
    pub regions: Spread,
}

/// An owner's policy for a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Data fragments and fragments in total; `None` leaves the choice to the number of providers at hand.
    #[serde(with = "scheme")]
    pub scheme: Option<Scheme>,
    /// How far holders must differ.
    pub distinct: Distinct,
    /// Fragments that must be held before a write is acknowledged, of a segment that is not copied, and all data fragments
    /// are always among them; `None` for the data fragments and half of the others. The rest is scheduled.
    pub minimum: Option<u8>,
}

/// Distinct operators always, and distinct networks and regions where there are enough.
impl Default for Policy {
    fn default() -> Policy {
        let distinct =
            Distinct { operators: Spread::Require, networks: Spread::Prefer, regions: Spread::Prefer };
        Policy { scheme: None, distinct, minimum: None }
    }
}

/// A policy that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{minimum} fragments can't be the minimum of a scheme of {data} of {total}")]
pub struct PolicyError {
    /// The minimum asked for.
    pub minimum: u8,
    /// The least it can be.
    pub data: usize,
    /// The most it can be.
    pub total: usize,
}

impl Policy {
    /// Whether the minimum fits the scheme: fewer than its data fragments would keep nothing, more there are not.
    ///
    /// # Errors
    /// [`PolicyError`] when it does not.
    pub fn check(&self) -> Result<(), PolicyError> {
        let Some(minimum) = self.minimum else { return Ok(()) };
        let (data, total) =
            self.scheme.map_or((1, seedbank_erasure::TOTAL_MAX), |scheme| (scheme.data(), scheme.total()));
        if (data..=total).contains(&usize::from(minimum)) {
            Ok(())
        } else {
            Err(PolicyError { minimum, data, total })
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        match self.scheme {
            Some(scheme) => write_scheme(scheme, writer),
            None => writer.raw(&[0, 0]),
        }
        for spread in [self.distinct.operators, self.distinct.networks, self.distinct.regions] {
            writer.u8(match spread {
                Spread::Ignore => 0,
                Spread::Prefer => 1,
                Spread::Require => 2,
            });
        }
        writer.u8(self.minimum.unwrap_or(0));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Policy, DecodeError> {
        let scheme = match reader.array()? {
            [0, 0] => None,
            [data, total] => Some(to_scheme(data, total, reader)?),
        };
        let distinct = Distinct {
            operators: read_spread(reader)?,
            networks: read_spread(reader)?,
            regions: read_spread(reader)?,
        };
        let minimum = Some(reader.u8()?).filter(|minimum| *minimum > 0);
        let policy = Policy { scheme, distinct, minimum };
        policy.check().map_err(|_| reader.invalid("a policy's minimum does not fit its scheme"))?;
        Ok(policy)
    }
}

fn read_spread(reader: &mut Reader<'_>) -> Result<Spread, DecodeError> {
    match reader.u8()? {
        0 => Ok(Spread::Ignore),
        1 => Ok(Spread::Prefer),
        2 => Ok(Spread::Require),
        _ => Err(reader.invalid("an unknown spread")),
    }
}

/// Writes a scheme as two bytes.
pub(crate) fn write_scheme(scheme: Scheme, writer: &mut Writer) {
    for count in [scheme.data(), scheme.total()] {
        writer.u8(u8::try_from(count).expect("a scheme has at most 255 fragments"));
    }
}

/// Reads what [`write_scheme`] wrote.
pub(crate) fn read_scheme(reader: &mut Reader<'_>) -> Result<Scheme, DecodeError> {
    let [data, total] = reader.array()?;
    to_scheme(data, total, reader)
}

fn to_scheme(data: u8, total: u8, reader: &Reader<'_>) -> Result<Scheme, DecodeError> {
    Scheme::new(data.into(), total.into()).map_err(|_| reader.invalid("two numbers are no scheme"))
}

/// A scheme as `[data, total]`, or null.
mod scheme {
    use seedbank_erasure::Scheme;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        scheme: &Option<Scheme>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        scheme.map(|scheme| (scheme.data(), scheme.total())).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Scheme>, D::Error> {
        let numbers = <Option<(usize, usize)>>::deserialize(deserializer)?;
        numbers.map(|(data, total)| Scheme::new(data, total)).transpose().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Policy, PolicyError, Spread};
    use crate::codec::{Reader, Writer};
    use proptest::prelude::{any, proptest};
    use seedbank_erasure::Scheme;

    #[test]
    fn a_minimum_outside_the_scheme_is_refused() {
        let policy = |minimum| Policy {
            scheme: Some(Scheme::new(4, 8).unwrap()),
            minimum: Some(minimum),
            ..Policy::default()
        };
        assert_eq!(policy(3).check(), Err(PolicyError { minimum: 3, data: 4, total: 8 }));
        assert_eq!((policy(4).check(), policy(8).check()), (Ok(()), Ok(())));
        assert!(policy(9).check().is_err());
        assert_eq!(Policy::default().check(), Ok(()));
    }

    #[test]
    fn a_policy_crosses_json() {
        let mut policy = Policy { scheme: Some(Scheme::new(4, 8).unwrap()), ..Policy::default() };
        policy.distinct.regions = Spread::Require;
        let json = serde_json::to_string(&policy).unwrap();
        assert!(json.contains(r#""scheme":[4,8]"#) && json.contains(r#""regions":"require""#), "{json}");
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        assert!(serde_json::from_str::<Policy>(&json.replace("[4,8]", "[8,4]")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_canonical(bytes in any::<[u8; 6]>(), small in any::<[u8; 4]>()) {
            let tame = [bytes[0], bytes[1], small[0] % 3, small[1] % 3, small[2] % 3, small[3]];
            for bytes in [bytes, tame] {
                let mut reader = Reader::bare("policy", &bytes);
                if let Ok(policy) = Policy::read(&mut reader) {
                    let mut writer = Writer::default();
                    policy.write(&mut writer);
                    assert_eq!(writer.finish(), bytes);
                }
            }
        }
    }
}
