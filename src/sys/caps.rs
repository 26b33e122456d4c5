//! The caller's capabilities.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

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
