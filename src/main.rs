//! The `lbd` program: hands the arguments to `lbd::cli`.

fn main() {}
