//! libFuzzer around the targets of `crates/fuzzing`; `SEEDBANK_FUZZ_TARGET` names one. `run.sh` builds and runs this.
//!
//! One program for all targets, because linking one for each would take most of the time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedbank_fuzzing::{TARGETS, Target, target};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

/// Inputs are a few kilobytes, the longest item that one of them can stand for is a megabyte. A decoder that asks for
/// more than this believed a length before it checked it.
const ALLOCATION_BYTES_MAX: usize = 16 << 20;

/// The system's allocator, which ends the process at an allocation that no input deserves.
struct Bounded;

impl Bounded {
    fn check(size: usize) {
        if size > ALLOCATION_BYTES_MAX {
            eprintln!("an allocation of {size} bytes");
            std::process::abort();
        }
    }
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Bounded::check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Bounded::check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Bounded::check(size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("SEEDBANK_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("SEEDBANK_FUZZ_TARGET is {name:?}, and not one of {}", names.join(", "))
    })
}

fuzz_target!(|bytes: &[u8]| (CHOSEN.get_or_init(chosen).run)(bytes));
