//! What `lbd --version` says about this build.

use std::sync::LazyLock;

/// Version, target and what was compiled in, one per line.
pub(super) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let libc = if cfg!(target_env = "musl") {
            "musl"
        } else {
            "gnu"
        };
        let profile = if cfg!(debug_assertions) {
            "debug: slow, for development"
        } else {
            "release"
        };
        // Set by whoever builds packages.
        let commit = option_env!("LBD_COMMIT").unwrap_or("not recorded");
        format!(
            "{}\ntarget:    {}-{}-{libc}\nprofile:   {profile}\ncommit:    {commit}\nTLS:       rustls with ring\nLinux:     5.4 or later",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            std::env::consts::OS,
        )
    });
    &TEXT
}
