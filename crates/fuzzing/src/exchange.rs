//! What both exchanges' targets draw alike.

use crate::input::Input;
use seedbank_erasure::Scheme;
use seedbank_formats::PublicKey;
use seedbank_protocol::moment::Moment;
use std::time::Duration;

/// No exchange may need more steps than this once nothing more happens to it.
pub(crate) const STEPS_MAX: usize = 1000;

pub(crate) fn provider(number: usize) -> PublicKey {
    PublicKey([u8::try_from(number).expect("there are few providers"); 32])
}

/// A scheme of up to eight fragments, copies among them.
pub(crate) fn scheme(input: &mut Input<'_>) -> Option<Scheme> {
    let data = 1 + input.below(5);
    Scheme::new(data, data + input.below(4)).ok()
}

/// From nothing to four minutes, in steps that double.
pub(crate) fn delay(input: &mut Input<'_>) -> Duration {
    match input.below(19) {
        0 => Duration::ZERO,
        step => Duration::from_millis(1 << (step - 1)),
    }
}

pub(crate) fn later(now: &mut Moment, input: &mut Input<'_>) {
    *now = now.plus(delay(input));
}
