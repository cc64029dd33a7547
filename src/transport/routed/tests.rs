//! Links of a real cluster, over sockets of this machine.
