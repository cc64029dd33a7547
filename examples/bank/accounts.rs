//! Durable actors of the bank: one ledger of all accounts, or an actor for each account.

use clap::ValueEnum;
use roadshow::prelude::*;
use roadshow::{Decide, Decision, Durable, DurableAddr};

/// Balance of each account at the start.
pub(crate) const OPENING: i64 = 1000;

/// Transfer that the driver asks for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RemoteData)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) amount: i64,
}

/// Line of a statement: the id of a transfer, and its amount.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RemoteData)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) amount: i64,
}

/// Account: its balance, and every transfer that has changed it.
///
/// The lists are there for the audit. They are lists and not sets, so that a transfer that happened twice is seen.
#[derive(Clone, Debug, Serialize, Deserialize, RemoteData)]
pub(crate) struct Statement {
    pub(crate) balance: i64,
    pub(crate) sent: Vec<Entry>,
    pub(crate) received: Vec<Entry>,
}

impl Statement {
    fn open() -> Self {
        Self { balance: OPENING, sent: Vec::new(), received: Vec::new() }
    }

    fn covers(&self, order: &Order) -> bool {
        self.balance >= order.amount
    }

    fn send(&mut self, entry: Entry) {
        self.balance -= entry.amount;
        self.sent.push(entry);
    }

    fn receive(&mut self, entry: Entry) {
        self.balance += entry.amount;
        self.received.push(entry);
    }
}

/// Bug of the bank, which the audit has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, RemoteData, ValueEnum)]
pub(crate) enum Bug {
    /// A credit is never sent
    LostCredit,
    /// A credit is sent twice
    DoubleCredit,
    /// A credit has one coin more than its debit
    ForgedCoin,
    /// Repeated calls have no keys; it shows when a worker is killed
    NoKeys,
}

impl Bug {
    /// Credits for a transfer; the bugs concern one transfer in a hundred.
    fn credits(bug: Option<Self>, order: &Order) -> Vec<Entry> {
        let credit = Entry { id: order.id, amount: order.amount };
        match bug.filter(|_| order.id % 100 == 7) {
            Some(Self::LostCredit) => Vec::new(),
            Some(Self::DoubleCredit) => vec![credit; 2],
            Some(Self::ForgedCoin) => vec![Entry { amount: credit.amount + 1, ..credit }],
            Some(Self::NoKeys) | None => vec![credit],
        }
    }
}

/// All accounts in one actor.
#[derive(Clone, Serialize, Deserialize, Durable)]
#[remote(decides(Move, Statements))]
pub(crate) struct Ledger {
    accounts: Vec<Statement>,
    bug: Option<Bug>,
}

/// Change of a ledger: an entry of one account.
#[derive(Serialize, Deserialize)]
pub(crate) enum LedgerEvent {
    Sent(u32, Entry),
    Received(u32, Entry),
}

impl Durable for Ledger {
    type Args = (usize, Option<Bug>);
    type Event = LedgerEvent;

    fn create((accounts, bug): (usize, Option<Bug>)) -> Self {
        Self { accounts: vec![Statement::open(); accounts], bug }
    }

    fn apply(&mut self, event: &LedgerEvent) {
        match event {
            LedgerEvent::Sent(account, entry) => self.accounts[*account as usize].send(*entry),
            LedgerEvent::Received(account, entry) => self.accounts[*account as usize].receive(*entry),
        }
    }
}

/// Transfers money within a ledger; false if the balance is too low.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "bool")]
pub(crate) struct Move(pub(crate) Order);

impl Decide<Move> for Ledger {
    fn decide(&self, Move(order): Move, decision: &mut Decision<Self>) -> bool {
        let is_covered = self.accounts[order.from as usize].covers(&order);
        if is_covered {
            // The events of one decision are stored together, or not at all.
            decision.record(LedgerEvent::Sent(order.from, Entry { id: order.id, amount: order.amount }));
            for credit in Bug::credits(self.bug, &order) {
                decision.record(LedgerEvent::Received(order.to, credit));
            }
        }
        is_covered
    }
}

/// Asks for the statements of all accounts.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Vec<Statement>")]
pub(crate) struct Statements;

impl Decide<Statements> for Ledger {
    fn decide(&self, Statements: Statements, _: &mut Decision<Self>) -> Vec<Statement> {
        self.accounts.clone()
    }
}

/// Account in an actor of its own.
#[derive(Clone, Serialize, Deserialize, Durable)]
#[remote(decides(Transfer, Credit, OneStatement))]
pub(crate) struct Account {
    statement: Statement,
    bug: Option<Bug>,
}

/// Change of an account.
#[derive(Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    Sent(Entry),
    Received(Entry),
}

impl Durable for Account {
    type Args = Option<Bug>;
    type Event = AccountEvent;

    fn create(bug: Option<Bug>) -> Self {
        Self { statement: Statement::open(), bug }
    }

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Sent(entry) => self.statement.send(*entry),
            AccountEvent::Received(entry) => self.statement.receive(*entry),
        }
    }
}

/// Transfers money to another account; false if the balance is too low.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "bool")]
pub(crate) struct Transfer {
    pub(crate) order: Order,
    pub(crate) to: DurableAddr<Account>,
}

impl Decide<Transfer> for Account {
    fn decide(&self, Transfer { order, to }: Transfer, decision: &mut Decision<Self>) -> bool {
        let is_covered = self.statement.covers(&order);
        if is_covered {
            decision.record(AccountEvent::Sent(Entry { id: order.id, amount: order.amount }));
            // The outbox: the credit is stored with the event, and leaves after that.
            for credit in Bug::credits(self.bug, &order) {
                decision.send(&to, Credit(credit));
            }
        }
        is_covered
    }
}

/// Adds money that another account has sent.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(crate) struct Credit(Entry);

impl Decide<Credit> for Account {
    fn decide(&self, Credit(entry): Credit, decision: &mut Decision<Self>) {
        decision.record(AccountEvent::Received(entry));
    }
}

/// Asks for the statement of an account.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Statement")]
pub(crate) struct OneStatement;

impl Decide<OneStatement> for Account {
    fn decide(&self, OneStatement: OneStatement, _: &mut Decision<Self>) -> Statement {
        self.statement.clone()
    }
}
