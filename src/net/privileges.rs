//! Giving up rights: capabilities, no_new_privs, seccomp, landlock.
