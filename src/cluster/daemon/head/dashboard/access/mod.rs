//! Access to the dashboard: its users' sessions and tickets, and the hosts and origins of requests.
//!
//! | credential | made by | valid |
//! |---|---|---|
//! | token, as Bearer or in a log-in | the cluster | as long as the cluster |
//! | ticket, in a link | `roadshow start`, `roadshow dashboard` | once, for ten minutes |
//! | session, in a cookie | a log-in, or a ticket | twelve hours, or until the head ends |
//!
//! Secrets are kept and compared as BLAKE3 digests, whose comparison takes constant time.

mod hosts;
mod limiter;

use std::collections::VecDeque;
use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) use hosts::AllowedHosts;
use limiter::LoginLimiter;

use crate::config::{
    DASHBOARD_SESSION_VALID, DASHBOARD_SESSIONS_MAX, DASHBOARD_TICKET_VALID, DASHBOARD_TICKETS_MAX,
};

/// Random bytes of a session id and of a ticket.
const SECRET_BYTES: usize = 32;

/// Credentials that the dashboard accepts.
pub(super) struct Access {
    token: blake3::Hash,
    state: Mutex<AccessState>,
}

struct AccessState {
    sessions: Secrets,
    tickets: Secrets,
    limiter: LoginLimiter,
}

/// Result of a log-in with the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// The token is right. The browser gets this session.
    Session(String),
    /// The token is wrong.
    Wrong,
    /// Too many log-ins have failed.
    TooMany,
}

impl Access {
    pub(super) fn new(token: &str) -> Self {
        let state = AccessState {
            sessions: Secrets::new(DASHBOARD_SESSIONS_MAX, DASHBOARD_SESSION_VALID),
            tickets: Secrets::new(DASHBOARD_TICKETS_MAX, DASHBOARD_TICKET_VALID),
            limiter: LoginLimiter::default(),
        };
        Self { token: blake3::hash(token.as_bytes()), state: Mutex::new(state) }
    }

    /// Makes a ticket.
    pub(super) fn ticket(&self, now: Instant) -> String {
        self.lock().tickets.make(now)
    }

    /// Exchanges a ticket for a session; `None` if it is not valid, or was used before.
    pub(super) fn redeem(&self, now: Instant, ticket: &str) -> Option<String> {
        let mut state = self.lock();
        state.tickets.take(now, ticket).then(|| state.sessions.make(now))
    }

    /// Logs in with a token.
    pub(super) fn log_in(&self, now: Instant, from: IpAddr, token: &str) -> Login {
        let mut state = self.lock();
        if state.limiter.is_exhausted(now, from) {
            return Login::TooMany;
        }
        if !self.is_token(token) {
            state.limiter.failed(now, from);
            return Login::Wrong;
        }
        Login::Session(state.sessions.make(now))
    }

    /// Checks a Bearer token.
    ///
    /// A right one is always accepted: a program on the same address must not lock out a monitoring system.
    pub(super) fn check_bearer(&self, now: Instant, from: IpAddr, token: &str) -> Result<(), Login> {
        if self.is_token(token) {
            return Ok(());
        }
        let mut state = self.lock();
        match state.limiter.is_exhausted(now, from) {
            true => Err(Login::TooMany),
            false => {
                state.limiter.failed(now, from);
                Err(Login::Wrong)
            }
        }
    }

    /// Checks if a session is valid.
    pub(super) fn is_session(&self, now: Instant, session: &str) -> bool {
        self.lock().sessions.contains(now, session)
    }

    /// Ends a session.
    pub(super) fn log_out(&self, now: Instant, session: &str) {
        self.lock().sessions.take(now, session);
    }

    fn is_token(&self, token: &str) -> bool {
        self.token == blake3::hash(token.as_bytes())
    }

    fn lock(&self) -> MutexGuard<'_, AccessState> {
        // Each change is one insertion or removal, so the state is valid after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

/// Bounded set of random secrets, each valid for a time.
struct Secrets {
    /// Digests with the ends of their validity, the oldest first.
    digests: VecDeque<(blake3::Hash, Instant)>,
    count_max: usize,
    valid: Duration,
}

impl Secrets {
    fn new(count_max: usize, valid: Duration) -> Self {
        Self { digests: VecDeque::new(), count_max, valid }
    }

    /// Makes a secret, and drops the oldest if there are too many.
    fn make(&mut self, now: Instant) -> String {
        self.expire(now);
        if self.digests.len() >= self.count_max {
            self.digests.pop_front();
        }
        let secret = random_hex();
        self.digests.push_back((blake3::hash(secret.as_bytes()), now + self.valid));
        secret
    }

    fn contains(&mut self, now: Instant, secret: &str) -> bool {
        self.expire(now);
        let digest = blake3::hash(secret.as_bytes());
        self.digests.iter().any(|(known, _)| *known == digest)
    }

    /// Removes a secret, and returns true if it was valid.
    fn take(&mut self, now: Instant, secret: &str) -> bool {
        self.expire(now);
        let digest = blake3::hash(secret.as_bytes());
        let before = self.digests.len();
        self.digests.retain(|(known, _)| *known != digest);
        self.digests.len() < before
    }

    fn expire(&mut self, now: Instant) {
        // All are valid for the same time, so the oldest expire first.
        while self.digests.front().is_some_and(|(_, until)| *until <= now) {
            self.digests.pop_front();
        }
    }
}

fn random_hex() -> String {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    bytes.iter().fold(String::with_capacity(2 * SECRET_BYTES), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DASHBOARD_LOGIN_PERIOD, DASHBOARD_LOGINS_FAILED_MAX};

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn ticket_is_valid_once_and_for_its_time() {
        let (access, now) = (Access::new("token"), Instant::now());
        let ticket = access.ticket(now);
        let session = access.redeem(now, &ticket).unwrap();
        assert_ne!(session, ticket);
        assert!(access.is_session(now, &session));
        assert_eq!(access.redeem(now, &ticket), None);

        let late = access.ticket(now);
        assert_eq!(access.redeem(now + DASHBOARD_TICKET_VALID, &late), None);
        assert_eq!(access.redeem(now, "0"), None);
    }

    #[test]
    fn sessions_and_tickets_are_bounded() {
        let (access, now) = (Access::new("token"), Instant::now());
        let Login::Session(first) = access.log_in(now, address(1), "token") else { panic!("no session") };
        for _ in 1..DASHBOARD_SESSIONS_MAX {
            access.log_in(now, address(1), "token");
        }
        assert!(access.is_session(now, &first));
        let ticket = access.ticket(now);
        access.redeem(now, &ticket).unwrap();
        assert!(!access.is_session(now, &first), "the oldest session must end");

        let first = access.ticket(now);
        for _ in 0..DASHBOARD_TICKETS_MAX {
            access.ticket(now);
        }
        assert_eq!(access.redeem(now, &first), None);
    }

    #[test]
    fn session_ends_at_log_out_and_after_its_time() {
        let (access, now) = (Access::new("token"), Instant::now());
        let Login::Session(session) = access.log_in(now, address(1), "token") else { panic!("no session") };
        assert!(access.is_session(now + DASHBOARD_SESSION_VALID - SECOND, &session));
        access.log_out(now, &session);
        assert!(!access.is_session(now, &session));
        let Login::Session(session) = access.log_in(now, address(1), "token") else { panic!("no session") };
        assert!(!access.is_session(now + DASHBOARD_SESSION_VALID, &session));
    }

    #[test]
    fn failed_log_ins_are_limited_but_a_right_bearer_token_is_accepted() {
        let (access, now) = (Access::new("token"), Instant::now());
        for _ in 0..DASHBOARD_LOGINS_FAILED_MAX {
            assert_eq!(access.log_in(now, address(1), "guess"), Login::Wrong);
        }
        assert_eq!(access.log_in(now, address(1), "token"), Login::TooMany);
        assert_eq!(access.check_bearer(now, address(1), "guess"), Err(Login::TooMany));
        assert_eq!(access.check_bearer(now, address(1), "token"), Ok(()));
        assert!(matches!(access.log_in(now, address(2), "token"), Login::Session(_)));
        let later = now + DASHBOARD_LOGIN_PERIOD;
        assert!(matches!(access.log_in(later, address(1), "token"), Login::Session(_)));
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert_eq!(format!("{:?}", Access::new("token")), "Access { .. }");
    }
}
