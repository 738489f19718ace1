//! `lbd schema`: the JSON Schema of lb.toml, for editors.

use clap::Args;

use super::reach::FAILURE;
use super::{Exit, out};
use crate::config::json_schema;

const EXAMPLES: &str = "\
Editors that know JSON Schema for TOML (Tombi, Taplo) then complete keys and mark mistakes.

Examples:
  lbd schema > lb.schema.json
  and as the first line of lb.toml:
  #:schema ./lb.schema.json";

/// It takes no arguments.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SchemaArgs {}

/// Prints it.
pub(super) fn run(_args: &SchemaArgs) -> u8 {
    let text = serde_json::to_string_pretty(&json_schema::schema());
    match text.map(|text| out(&(text + "\n"))) {
        Ok(Ok(())) => Exit::Success.code(),
        Ok(Err(_)) | Err(_) => FAILURE,
    }
}
