//! What the allocator keeps.

/// Buffers of at least so many bytes go back to the kernel as soon as they are free.
const LARGE: libc::c_int = 1 << 20;

/// Keeps the allocator from holding on to large buffers. Left alone it learns from the first one that is freed to take such from
/// its pools, of which every few threads have their own: a pull's windows of decompression would stay in all of them.
pub fn give_back_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and only sets a number of the allocator's, under the allocator's own lock. Where it is refused
    // the program only takes more memory.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
