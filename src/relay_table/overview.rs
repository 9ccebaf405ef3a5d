//! The fleet as people look at it: the rows of members and leases, with what those rows tell people besides.
//!
//! Reads only; nothing here decides anything.

use std::collections::BTreeMap;

use super::lease_row::UPDATED_AT;
use super::lease_row::number_in;
use super::members::{FLEET, LAGS, MEMBER, RENEWED_AT, decode_fleet};
use super::table::SK;
use super::{Checkpoint, RelayTable};
use crate::event::Timestamp;
use crate::fleet::{Fleet, Lease, MemberId, Report};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Item, text_of};

/// All rows of the fleet.
#[derive(Debug, Clone, Default)]
pub struct RollCall {
    /// Members, view and lineage.
    pub fleet: Fleet,
    /// What each member has told with its last renewal, and when that was, by its clock; none before its first.
    pub told: BTreeMap<MemberId, (Option<Timestamp>, Report)>,
}

/// A lease and how far its handler has come on it.
#[derive(Debug, Clone)]
pub struct LeaseRow {
    /// The lease.
    pub lease: Lease,
    /// How far its handler has come.
    pub checkpoint: Option<Checkpoint>,
    /// When the row was last written.
    pub updated_at: Option<Timestamp>,
}

impl RelayTable {
    /// Reads all rows of the fleet, consistently.
    ///
    /// # Errors
    /// As the call failed, or when a row cannot be read.
    pub async fn roll_call(&self) -> Result<RollCall, StorageError> {
        let rows = self.partition(FLEET).await?;
        let fleet = decode_fleet(&rows).map_err(|(sk, reason)| self.unreadable(FLEET, &sk, reason))?;
        let id = |row: &Item| Some(MemberId::new(text_of(row, SK)?.strip_prefix(MEMBER)?));
        let told = rows.iter().filter_map(|row| Some((id(row)?, told_by(row)))).collect();
        Ok(RollCall { fleet, told })
    }

    /// Reads all leases of a handler, consistently.
    ///
    /// # Errors
    /// As a call failed, or when a row cannot be read.
    pub async fn lease_rows(&self, handler: &HandlerName) -> Result<Vec<LeaseRow>, StorageError> {
        let row = |(lease, item): (Lease, Item)| {
            Ok(LeaseRow { lease, checkpoint: self.checkpoint_of(&item)?, updated_at: moment_of(&item, UPDATED_AT) })
        };
        self.leases_by_handler(handler).await?.into_iter().map(row).collect()
    }
}

fn moment_of(item: &Item, name: &str) -> Option<Timestamp> {
    text_of(item, name).and_then(|text| Timestamp::parse(text).ok())
}

fn told_by(row: &Item) -> (Option<Timestamp>, Report) {
    let lags = row.get(LAGS).and_then(|value| value.as_m().ok());
    let lag = |(name, secs): (&String, &_)| Some((HandlerName::new(name).ok()?, number_in(secs)?));
    let lags_secs = lags.into_iter().flatten().filter_map(lag).collect();
    (moment_of(row, RENEWED_AT), Report { lags_secs })
}
