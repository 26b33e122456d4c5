//! The caller's capabilities.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The five sets of a process, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What may be held at all.
    pub bounding: u64,
    /// What counts.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What an exec of a file with such capabilities passes on.
    pub inheritable: u64,
    /// What every exec passes on.
    pub ambient: u64,
}

/// Number of the kernel's last capability that this build knows.
const LAST: u32 = 40;

/// Takes everything but the bits of `mask` out of the bounding set.
pub fn limit(mask: u64) -> io::Result<()> {
    for number in (0..64).filter(|number| mask & (1 << number) == 0) {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(bit) {
            // Past the last one that this kernel has.
            Err(rustix::io::Errno::INVAL) if number > LAST / 2 => break,
            other => other?,
        }
    }
    Ok(())
}

/// Makes `mask` the effective and permitted set, as far as the caller has it; nothing is inheritable or ambient.
pub fn set(mask: u64) -> io::Result<()> {
    let held = CapabilitySet::from_bits_retain(mask) & rustix::thread::capabilities(None)?.permitted;
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// Lets the permitted set survive a change from user 0 to another, until the next exec.
pub fn keep_over_users() -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(true)?)
}

/// Takes on all sets but the bounding one, as far as the caller has them.
pub fn apply(sets: &Sets) -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?.permitted;
    let as_held = |bits| CapabilitySet::from_bits_retain(bits) & held;
    let permitted = as_held(sets.permitted);
    let effective = as_held(sets.effective) & permitted;
    // What is not in the bounding set any more can't be made inheritable.
    let inheritable = as_held(sets.inheritable & sets.bounding);
    rustix::thread::set_capabilities(None, CapabilitySets { effective, permitted, inheritable })?;
    rustix::thread::clear_ambient_capability_set()?;
    for number in (0..=LAST).filter(|number| sets.ambient & (1 << number) != 0) {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        if permitted.contains(bit) && inheritable.contains(bit) {
            rustix::thread::configure_capability_in_ambient_set(bit, true)?;
        }
    }
    Ok(())
}
