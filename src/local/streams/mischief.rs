//! What can go wrong with a call of the server though the client did nothing wrong: each kind is something that the real
//! service, or the network before it, does. Pure.
//!
//! When it happens is `misbehaviour`'s to decide, how it is done the service's. Invariant: no kind changes the order of
//! a shard's records, and none but [`Mischief::Trimmed`] takes a record away.

use super::fault::Fault;
use super::operation::Operation;

/// One way in which a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mischief {
    /// It is refused: too many calls (`ThrottlingException`).
    Throttled,
    /// It is refused: too many reads of the shard (`LimitExceededException`).
    LimitExceeded,
    /// It fails in the service (`InternalServerError`).
    Failed,
    /// It is carried out and answered late, by the options' `lateness`.
    Late,
    /// The connection is cut, and the call is not carried out.
    Cut,
    /// The call is carried out, and the connection is cut before the answer.
    CutReply,
    /// The call is carried out, and the connection is cut in the middle of the answer.
    HalfReply,
    /// The call is carried out, and its answer arrives as one without a body: something on the way has lost it.
    EmptyReply,
    /// The iterator has expired, however fresh it is.
    Expired,
    /// The shard is not found, though it is there: a node of the service does not know it (yet).
    NotFound,
    /// The records it would have given are trimmed right before. The real service trims none younger than a day.
    Trimmed,
    /// The records before its place are given once more, and the next iterator goes on as it should.
    Repeated,
    /// No records are given though there are some; the next iterator stands at the same place.
    Empty,
    /// The list is from before the last change of the shards: its children are not in it, and their parent is open.
    Outdated,
    /// Every closed shard that has children is shown as open beside them.
    OpenParents,
    /// The shards that the last change closed are shown without their children.
    UnlistedChildren,
}

impl Mischief {
    /// All kinds.
    pub const ALL: [Self; 16] = [
        Self::Throttled,
        Self::LimitExceeded,
        Self::Failed,
        Self::Late,
        Self::Cut,
        Self::CutReply,
        Self::HalfReply,
        Self::EmptyReply,
        Self::Expired,
        Self::NotFound,
        Self::Trimmed,
        Self::Repeated,
        Self::Empty,
        Self::Outdated,
        Self::OpenParents,
        Self::UnlistedChildren,
    ];

    /// Whether a call of this operation can go wrong so.
    #[must_use]
    pub fn fits(self, operation: Operation) -> bool {
        match self {
            Self::Throttled
            | Self::Failed
            | Self::Late
            | Self::Cut
            | Self::CutReply
            | Self::HalfReply
            | Self::EmptyReply => true,
            Self::NotFound => matches!(operation, Operation::GetShardIterator | Operation::GetRecords),
            Self::LimitExceeded | Self::Expired | Self::Trimmed | Self::Repeated | Self::Empty => {
                operation == Operation::GetRecords
            }
            Self::Outdated | Self::OpenParents | Self::UnlistedChildren => operation == Operation::DescribeStream,
        }
    }

    /// Whether it makes a difference only where there is something to get wrong: records at the place, or shards with
    /// children.
    pub(super) fn may_miss(self) -> bool {
        matches!(
            self,
            Self::Trimmed | Self::Repeated | Self::Empty | Self::Outdated | Self::OpenParents | Self::UnlistedChildren
        )
    }

    /// What is answered in the place of carrying the call out.
    pub(super) fn refusal(self) -> Option<Fault> {
        match self {
            Self::Throttled => Some(Fault::Throttled),
            Self::LimitExceeded => Some(Fault::LimitExceeded),
            Self::Failed => Some(Fault::Internal("something went wrong in the service".into())),
            Self::Expired => Some(Fault::Expired),
            Self::NotFound => Some(Fault::NotFound("Shard".into())),
            _ => None,
        }
    }
}

/// Calls that go wrong by chance, each drawn from the seed alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MischiefPlan {
    /// Of what all draws follow.
    pub seed: u64,
    /// Of a hundred calls of an operation that has kinds here, so many go wrong.
    pub percent: u64,
    /// How: each kind of an operation is as likely as another.
    pub kinds: Vec<(Operation, Mischief)>,
}

impl MischiefPlan {
    /// Every kind at every operation that it fits.
    #[must_use]
    pub fn everything(seed: u64, percent: u64) -> Self {
        let of = |operation| Mischief::ALL.into_iter().map(move |mischief| (operation, mischief));
        let kinds = Operation::ALL.into_iter().flat_map(of);
        Self { seed, percent, kinds: kinds.filter(|(operation, mischief)| mischief.fits(*operation)).collect() }
    }
}
