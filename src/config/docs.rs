//! The reference of lb.toml as Markdown, from the table of keys.
