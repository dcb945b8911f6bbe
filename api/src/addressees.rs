//! Whose events are they: from the device or the wxid that a callback names to an account.

use std::sync::Arc;
use std::time::Duration;

use entropy_jobs::batch::Batcher;
use entropy_schema::Db;
use entropy_schema::callbacks::{self, Addressee};

use crate::fresh::Fresh;
use crate::problem::ApiError;

/// A device, and the wxid if the callback names one.
pub(crate) type Place = (String, Option<String>);

/// How long an answer counts.
const LIFETIME: Duration = Duration::from_secs(2);

/// Places per statement.
const AT_ONCE: usize = 64;

type Found = Result<Option<Addressee>, Arc<entropy_schema::Error>>;

/// Looks accounts up. Callbacks that ask at the same time share a statement: at 500 a second, answers of many accounts grow
/// old together, and asking for one after the other would hold all of them up.
pub(crate) struct Addressees {
    fresh: Fresh<Place, Addressee>,
    lookups: Batcher<Place, Found>,
}

impl Addressees {
    /// Starts the task that asks.
    pub(crate) fn new(db: Db) -> Addressees {
        let lookups = Batcher::start(AT_ONCE, move |places| {
            let db = db.clone();
            async move { look_up(&db, &places).await }
        });
        Addressees { fresh: Fresh::new(LIFETIME), lookups }
    }

    /// Finds the account that an event is about.
    pub(crate) async fn find(&self, place: Place) -> Result<Option<Addressee>, ApiError> {
        if let Some(found) = self.fresh.get(&place) {
            return Ok(Some(found));
        }
        let found = match self.lookups.call(place.clone()).await {
            Some(Ok(found)) => found,
            Some(Err(error)) if error.is_unavailable() => return Err(ApiError::unavailable(error)),
            Some(Err(error)) => return Err(ApiError::internal(error)),
            None => return Err(ApiError::internal("the task that looks accounts up is gone")),
        };
        if let Some(found) = &found {
            self.fresh.put(place, found.clone());
        }
        Ok(found)
    }
}

async fn look_up(db: &Db, places: &[Place]) -> Vec<Found> {
    let candidates = async {
        let devices: Vec<&str> = places.iter().map(|(device, _)| device.as_str()).collect();
        let wxids: Vec<&str> = places.iter().filter_map(|(_, wxid)| wxid.as_deref()).collect();
        callbacks::addressees(&mut *db.conn().await?, &devices, &wxids).await
    };
    match candidates.await {
        Ok(candidates) => places
            .iter()
            .map(|(device, wxid)| Ok(choose(&candidates, device, wxid.as_deref()).cloned()))
            .collect(),
        Err(error) => {
            let error = Arc::new(error);
            places.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

/// Picks the account that an event is about. The wxid decides, since a device changes hands with every login; the device
/// does where one of the two has no wxid yet, and then only if it is that of one account alone.
fn choose<'a>(candidates: &'a [Addressee], device: &str, wxid: Option<&str>) -> Option<&'a Addressee> {
    if let Some(found) = candidates.iter().find(|account| wxid.is_some() && account.wxid.as_deref() == wxid) {
        return Some(found);
    }
    let mut by_device = candidates.iter().filter(|account| {
        account.gewe_app_id.as_deref() == Some(device) && (wxid.is_none() || account.wxid.is_none())
    });
    by_device.next().filter(|_| by_device.next().is_none())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn account(n: u128, wxid: Option<&str>, app_id: Option<&str>) -> Addressee {
        Addressee {
            id: Uuid::from_u128(n),
            organization_id: Uuid::from_u128(n + 100),
            wxid: wxid.map(str::to_owned),
            gewe_app_id: app_id.map(str::to_owned),
        }
    }

    #[test]
    fn the_wxid_decides_and_the_device_only_where_there_is_none() {
        let all = [
            account(1, Some("wxid_a"), Some("wx_1")),
            account(2, Some("wxid_b"), Some("wx_2")),
            account(3, None, Some("wx_3")),
            account(4, None, Some("wx_4")),
            account(5, None, Some("wx_4")),
        ];
        let chosen = |app_id, wxid| choose(&all, app_id, wxid).map(|account| account.id.as_u128());
        assert_eq!(chosen("wx_1", Some("wxid_a")), Some(1));
        assert_eq!(chosen("wx_2", Some("wxid_a")), Some(1), "it logged in on another device");
        assert_eq!(chosen("wx_1", None), Some(1));
        assert_eq!(chosen("wx_1", Some("wxid_c")), None, "somebody else logged in on the device");
        assert_eq!(chosen("wx_3", Some("wxid_c")), Some(3), "the account has not logged in before");
        assert_eq!(chosen("wx_4", None), None, "it may be either");
        assert_eq!(chosen("wx_9", None), None);
    }
}
