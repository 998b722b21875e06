//! GET and HEAD of a value: conditions, ranges, and the memory for the answer.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use uuid::Uuid;

use super::{BASE, FORMAT, READ};
use crate::http::answer::envelope::{ContentForm, Envelope};
use crate::http::answer::error::{Error, RefusalForm};
use crate::http::answer::size::{CONTENT_FACTOR, content_bytes, envelope_text_bytes};
use crate::http::answer::{text, value};
use crate::http::request::query::{EXACT, Query};
use crate::http::request::{date, etag, path, range};
use crate::http::server::limits::{LARGE_BYTES_MIN, Permit};
use crate::http::state::{App, Ctx};
use crate::model::condition::Current;
use crate::model::{Condition, Header, Key, Tags, Timestamp};
use crate::store::{CURRENT_BYTES_MAX, Entry};

/// The conditions of a read (RFC 9110, section 13.2.2). Those that another one outranks are left
/// out.
struct ReadConditions {
    matches: Option<Tags>,
    unmodified_since: Option<u64>,
    differs: Option<Tags>,
    modified_since: Option<u64>,
    /// The versions that `If-Match` names by weak tags.
    weak: Vec<Uuid>,
}

impl ReadConditions {
    fn parse(headers: &HeaderMap, now: Timestamp) -> Result<Self, Error> {
        let matches = etag::if_match(headers)?;
        let differs = etag::if_none_match(headers)?;
        let unmodified_since =
            if matches.is_none() { date::if_unmodified_since(headers) } else { None };
        let modified_since =
            if differs.is_none() { date::if_modified_since(headers) } else { None };
        // no answer of this node names a later date, so that one comes from a wrong clock
        let modified_since = modified_since.filter(|at| *at <= date::second(now));
        let weak = etag::weak_if_match(headers);
        Ok(Self { matches, unmodified_since, differs, modified_since, weak })
    }

    /// Whether there is anything to decide.
    fn is_any(&self) -> bool {
        self.must_hold() || self.differs.is_some() || self.modified_since.is_some()
    }

    /// Whether one condition refuses the read if it does not hold.
    fn must_hold(&self) -> bool {
        self.matches.is_some() || self.unmodified_since.is_some()
    }
}

/// What the conditions of a read come to.
enum ReadDecision {
    /// The answer, without the value.
    Answer(Response),
    /// The conditions hold for the version of this uuid; `None`: there is no live value.
    GoOn(Option<Uuid>),
}

/// GET and HEAD.
pub(super) async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(READ.query, request.uri().query())?;
    let envelope = query.take(&FORMAT)?.is_some();
    let form = query.take(&EXACT)?.unwrap_or_default();
    query.finish()?;
    let conditions = ReadConditions::parse(request.headers(), app.state.clock.now())?;
    app.check_serving()?;
    let (entry, permit) = loop {
        let mut decided = None;
        if conditions.is_any() {
            match decide(app, &key, &conditions, form).await? {
                ReadDecision::Answer(answer) => return Ok(answer),
                ReadDecision::GoOn(uuid) => decided = uuid,
            }
        }
        // the value may have changed since the decision: decide again, so that a client that joins
        // ranges never gets one of another value
        let is_other = |header: Option<&Header>| {
            conditions.must_hold() && decided != header.map(|header| header.version.uuid)
        };
        if request.method() == Method::HEAD && !envelope {
            let header = app.state.store.head(&key).await?;
            if is_other(header.as_ref()) {
                continue;
            }
            return Ok(head(app, &header.ok_or(Error::KeyNotFound)?));
        }
        match fetch(app, &key, if envelope { CONTENT_FACTOR } else { 1 }).await {
            Ok((entry, _)) if is_other(Some(&entry.header)) => {}
            Err(Error::KeyNotFound) if is_other(None) => {}
            fetched => break fetched?,
        }
    };
    let tag = etag::of(entry.header.version.uuid);
    if envelope {
        let size = entry.content_bytes();
        let shown =
            move || text::text(&Envelope::of(&key, &entry, form), envelope_text_bytes(size));
        let text = app.work(size, shown).await?;
        let body = text::with_fitting_permit(&app.answers, text, permit);
        let mut response = text::json_bytes(StatusCode::OK, body);
        response.headers_mut().insert(ETAG, tag);
        return Ok(response);
    }
    let part = range::part(request.headers(), entry.content_bytes(), &tag)?;
    let headers = value::headers(&entry.header, app.state.clock.now());
    let body = text::with_permit(entry.body.unwrap_or_default(), permit);
    Ok(value::part(headers, body, part))
}

/// The answer to HEAD; does not read the bytes of the value.
fn head(app: &App, header: &Header) -> Response {
    let mut headers = value::headers(header, app.state.clock.now());
    value::accept_ranges(&mut headers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(header.content.size()));
    value::whole(headers, Bytes::new())
}

/// The live value, and a permit for an answer of `factor` times its size. Takes the permit of a
/// large value before it reads the value.
async fn fetch(app: &App, key: &Key, factor: usize) -> Result<(Entry, Option<Permit>), Error> {
    loop {
        let found = app.state.store.peek(key).await?.ok_or(Error::KeyNotFound)?;
        let size = content_bytes(&found.header);
        let bytes = size.saturating_mul(factor);
        if found.body.is_some() && bytes < LARGE_BYTES_MIN {
            return Ok((found, None));
        }
        drop(found);
        let permit = app.answer_permit(bytes).await?;
        let entry = app.state.store.get(key).await?.ok_or(Error::KeyNotFound)?;
        // otherwise a larger value came in between: start over with memory for that one
        if entry.content_bytes() <= size {
            return Ok((entry, permit));
        }
    }
}

/// Decides the conditions of a read by the header of the value. A value that is written after this
/// decision is newer and as good an answer, unless a condition must hold for it.
async fn decide(
    app: &App,
    key: &Key,
    conditions: &ReadConditions,
    form: ContentForm,
) -> Result<ReadDecision, Error> {
    let header = app.state.store.head(key).await?;
    let current =
        header.as_ref().map(|header| Current { header, displaced_twin: false, body: None });
    let mut holds = conditions.matches.clone().is_none_or(|t| Condition::Match(t).holds(current));
    if let (Some(header), Some(since)) = (&header, conditions.unmodified_since) {
        holds = is_unchanged(app, key, header, since).await?;
    }
    if !holds {
        let current = match &header {
            Some(header) => Some((key.clone(), Box::new(current_entry(app, key, header).await?))),
            None => None,
        };
        let form = RefusalForm { swap: false, content: form, weak: conditions.weak.clone() };
        return Err(Error::PreconditionFailed { current, form });
    }
    let Some(header) = &header else { return Ok(ReadDecision::GoOn(None)) };
    let is_known = match (conditions.differs.clone(), conditions.modified_since) {
        (Some(tags), _) => !Condition::NoneMatch(tags).holds(current),
        (None, Some(since)) => is_unchanged(app, key, header, since).await?,
        (None, None) => false,
    };
    if !is_known {
        return Ok(ReadDecision::GoOn(Some(header.version.uuid)));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let mut headers = value::headers(header, app.state.clock.now());
    headers.remove(CONTENT_TYPE);
    *response.headers_mut() = headers;
    Ok(ReadDecision::Answer(response))
}

/// Whether the live value is certainly the one that a client knows by the date `since`, in seconds.
/// Where an earlier version of the key has the same date, nobody can tell which one it knows.
async fn is_unchanged(app: &App, key: &Key, header: &Header, since: u64) -> Result<bool, Error> {
    let written = date::second(header.version.timestamp);
    if written != since {
        return Ok(written < since);
    }
    let revisions = app.state.store.history(key, 2, 0).await?;
    assert!(revisions.len() <= 2, "more revisions than were asked for");
    let is_current = revisions.first().is_some_and(|r| r.header.version == header.version);
    let is_alone = match revisions.get(1) {
        Some(earlier) => date::second(earlier.header.version.timestamp) < since,
        // without a history, one that replaced another may have done so within this second
        None => header.parent.is_none(),
    };
    Ok(is_current && is_alone)
}

/// The live value for a refusal, with its bytes if they are few.
async fn current_entry(app: &App, key: &Key, header: &Header) -> Result<Entry, Error> {
    if header.content.size() <= CURRENT_BYTES_MAX
        && let Some(entry) = app.state.store.get(key).await?
    {
        return Ok(entry);
    }
    Ok(Entry { header: header.clone(), body: None })
}
