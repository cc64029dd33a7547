//! How a process becomes a member: it asks the head's desk for a certificate.
