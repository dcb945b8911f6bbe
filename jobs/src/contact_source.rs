//! The port to an account's address book at the provider. Everything here is safe to repeat; labels are all that it writes.

use entropy_schema::contact_syncs::Member;
use futures::future::BoxFuture;

use crate::provider::{Device, SendError};

/// The most people that one call of [`ContactSource::brief`] describes.
pub const BRIEF: usize = 20;

/// Who is in an address book, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// People.
    pub friends: Vec<String>,
    /// Groups that were saved to the address book. Others there are may be missing.
    pub groups: Vec<String>,
    /// Public accounts.
    pub officials: Vec<String>,
}

/// What is known of a person or a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brief {
    /// Its id.
    pub wxid: String,
    /// The name that it has given itself.
    pub nickname: String,
    /// What the account's owner calls it.
    pub remark: String,
    /// The WeChat number.
    pub alias: Option<String>,
    /// Address of the picture.
    pub avatar: Option<String>,
    /// Ids of its labels.
    pub label_ids: Vec<String>,
}

/// Reads address books, and writes the labels of friends.
pub trait ContactSource: Send + Sync {
    /// Lists everybody: slow, and may fail to answer in time. `cached`: asks for what the slow call has found meanwhile.
    /// None: the provider is not done yet.
    fn list<'a>(
        &'a self,
        device: &'a Device,
        cached: bool,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listing>, SendError>>;

    /// Describes up to [`BRIEF`] people and groups. Whom the provider does not know is left out.
    fn brief<'a>(
        &'a self,
        device: &'a Device,
        wxids: &'a [String],
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Brief>, SendError>>;

    /// Lists the labels: id and name.
    fn labels<'a>(
        &'a self,
        device: &'a Device,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, SendError>>;

    /// Lists the members of a group.
    fn members<'a>(
        &'a self,
        device: &'a Device,
        group: &'a str,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Member>, SendError>>;

    /// Makes a label and returns its id; that of the label that has the name already, if there is one.
    fn make_label<'a>(
        &'a self,
        device: &'a Device,
        name: &'a str,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<String, SendError>>;

    /// Makes the labels of a friend these, by id: all others are taken away.
    fn set_labels<'a>(
        &'a self,
        device: &'a Device,
        wxid: &'a str,
        label_ids: &'a [String],
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<(), SendError>>;
}
