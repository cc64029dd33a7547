//! Audit of the bank while transfers run.
//!
//! A look asks each account for its statement. The accounts answer at different moments, and no look needs a common one:
//!
//! - One statement is of one moment. So its balance is the opening balance, minus what it lists as sent, plus what it
//!   lists as received.
//! - The sum over all accounts is then the opening sum, minus all that is listed as sent, plus all that is listed as
//!   received, whatever the moments were.
//! - The difference of the two lists is the money under way: in outboxes, or credited at an account that was asked
//!   later. It is below zero if a receiver was asked after a sender, and money moved in between.
//!
//! The amounts alone would not show two errors that cancel out. So the audit knows every order, and compares ids:
//!
//! - No id is listed twice, and each entry has the account and the amount of its order.
//! - A transfer that was acknowledged before a look began is listed as sent in it.
//! - A credit that a look has seen is listed as sent by the next look: it left after its debit was stored.
//! - At the end sent, received and acknowledged transfers are the same ones.

use std::collections::HashSet;

use crate::accounts::{Entry, OPENING, Order, Statement};

/// Maximum number of errors that are kept, since one bug may cause one for each transfer.
const ERRORS_MAX: usize = 20;

/// Knowledge of the auditor.
#[derive(Default)]
pub(crate) struct Audit {
    /// Orders by id.
    orders: Vec<Order>,
    /// Ids of transfers that the bank has acknowledged, in that order.
    pub(crate) acknowledged: Vec<u64>,
    /// Number of transfers that the bank has refused.
    pub(crate) refused: usize,
    /// Ids of credits that the last look has seen.
    received: HashSet<u64>,
    pub(crate) looks: u64,
    /// Largest amount that a look has seen under way.
    pub(crate) most_under_way: i64,
    pub(crate) errors: Vec<String>,
}

/// Sent and received transfers of a look.
#[derive(PartialEq, Eq)]
pub(crate) struct Seen {
    sent: HashSet<u64>,
    received: HashSet<u64>,
}

impl Seen {
    /// Tests if each transfer that was sent has arrived.
    pub(crate) fn is_settled(&self) -> bool {
        self.sent == self.received
    }
}

impl Audit {
    /// Adds an order with a random amount between random accounts.
    pub(crate) fn order(&mut self, random: &mut fastrand::Rng, accounts: u32) -> Order {
        let from = random.u32(..accounts);
        let to = (from + random.u32(1..accounts)) % accounts;
        let order = Order { id: self.orders.len() as u64, from, to, amount: random.i64(1..=OPENING / 5) };
        self.orders.push(order);
        order
    }

    /// Checks the statements of a look, before which the first `acknowledged` transfers had their replies.
    pub(crate) fn check(&mut self, acknowledged: usize, statements: &[Statement]) -> Seen {
        self.looks += 1;
        let sum = |entries: &[Entry]| entries.iter().map(|entry| entry.amount).sum::<i64>();
        let (mut total, mut under_way) = (0, 0);
        for (number, statement) in statements.iter().enumerate() {
            let (sent, received) = (sum(&statement.sent), sum(&statement.received));
            (total, under_way) = (total + statement.balance, under_way + sent - received);
            let expected = OPENING - sent + received;
            if statement.balance != expected || expected < 0 {
                let balance = statement.balance;
                self.error(format!("account {number} has {balance}, and its entries say {expected}"));
            }
        }
        self.most_under_way = self.most_under_way.max(under_way);
        let opening = OPENING * statements.len() as i64;
        if total + under_way != opening {
            self.error(format!("{total} in accounts and {under_way} under way are not {opening}"));
        }
        let sent = self.ids("sent", statements, |it| &it.sent, |order| order.from);
        let received = self.ids("received", statements, |it| &it.received, |order| order.to);
        let lost: Vec<_> =
            self.acknowledged[..acknowledged].iter().filter(|id| !sent.contains(id)).copied().collect();
        self.errors_of(lost, "was acknowledged, and is lost");
        let unsent = self.received.difference(&sent).copied().collect();
        self.errors_of(unsent, "was received, and not sent");
        self.received.clone_from(&received);
        Seen { sent, received }
    }

    /// Ids of all entries of one side, each of which must be that of an order, and once.
    fn ids(
        &mut self,
        side: &str,
        statements: &[Statement],
        entries: fn(&Statement) -> &Vec<Entry>,
        account: fn(&Order) -> u32,
    ) -> HashSet<u64> {
        let mut ids = HashSet::new();
        for (number, statement) in statements.iter().enumerate() {
            for entry in entries(statement) {
                let order = self.orders.get(entry.id as usize);
                let is_ordered =
                    |order: &Order| account(order) as usize == number && order.amount == entry.amount;
                if !order.is_some_and(is_ordered) {
                    self.error(format!("account {number} has {side} {entry:?}, and the order is {order:?}"));
                }
                if !ids.insert(entry.id) {
                    self.error(format!("transfer {} was {side} twice", entry.id));
                }
            }
        }
        ids
    }

    /// Checks the last look, after which nothing is under way.
    pub(crate) fn check_end(&mut self, last: &Seen) {
        let acknowledged: HashSet<u64> = self.acknowledged.iter().copied().collect();
        let refused = last.sent.difference(&acknowledged).copied().collect();
        self.errors_of(refused, "was refused, and happened");
        let lost = last.sent.difference(&last.received).copied().collect();
        self.errors_of(lost, "was sent, and never received");
    }

    fn errors_of(&mut self, ids: Vec<u64>, text: &str) {
        ids.into_iter().for_each(|id| self.error(format!("transfer {id} {text}")));
    }

    fn error(&mut self, text: String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(text);
        }
    }
}
