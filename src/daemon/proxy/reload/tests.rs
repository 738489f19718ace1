//! What is in reach of a running process, and what is not.

use super::*;
