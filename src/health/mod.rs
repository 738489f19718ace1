//! Is this server alive? A pure rise/fall machine, one probe, one task per server.
