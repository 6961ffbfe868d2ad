//! What a model must read before what is new: the chain that a response continues, or its conversation, in one read of one moment.
//!
//! BOUND: as many bytes as a request may have, `--max-payload-size`. A chain in which a response was deleted is refused, not shortened (ADR 17).

use crate::dialects::responses::Create;
use crate::dialects::responses::Given;
use crate::dialects::responses::Object;
use crate::dialects::responses::Refused as Unfit;
use crate::dialects::responses::named;
use crate::history::Handle;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::InvalidName;
use crate::history::Item;
use crate::history::Owner;
use crate::history::Rows;
use crate::history::machine::Refusal;
use crate::history::machine::read;
use crate::history::machine::read::Missing;
use crate::history::machine::read::Page;

use super::super::error::ApiError;
use super::stored;

/// The names in a request, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub previous: Option<Id>,
    pub conversation: Option<Id>,
}

impl Names {
    pub(super) fn read(create: &Create) -> Result<Self, ApiError> {
        let parse = |id: &Option<String>, what: &'static str, param| {
            let missing = |id: &str| ApiError::NoRecord { what, id: id.chars().take(Id::LEN_MAX).collect(), param };
            id.as_deref().map(|it| Id::parse(it).map_err(|_no_id| missing(it))).transpose()
        };
        Ok(Self {
            previous: parse(&create.previous, "response", Some("previous_response_id"))?,
            conversation: parse(&create.conversation, "conversation", Some("conversation"))?,
        })
    }

    /// What history says of them, with the field that named it.
    pub(super) fn blame(&self, error: HistoryError) -> ApiError {
        let missing = match &error {
            HistoryError::Refused(Refusal::NotFound(id)) | HistoryError::Missing(Missing::NotFound(id)) => id.clone(),
            _ => return error.into(),
        };
        let (what, param) = if Some(&missing) == self.previous.as_ref() {
            ("response", "previous_response_id")
        } else if Some(&missing) == self.conversation.as_ref() {
            ("conversation", "conversation")
        } else {
            ("item", "input")
        };
        ApiError::NoRecord { what, id: missing.to_string(), param: Some(param) }
    }
}

/// What a model reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Material {
    /// What came before, oldest first.
    pub context: Vec<Object>,
    /// What is new.
    pub own: Vec<Object>,
}

impl Material {
    /// All of it.
    pub(super) fn all(&self) -> Vec<Object> {
        self.context.iter().chain(&self.own).cloned().collect()
    }
}

/// Reads it. New items get names.
pub(super) async fn gather(
    history: &Handle,
    owner: &Owner,
    create: &Create,
    names: &Names,
    bytes_max: u64,
) -> Result<Material, ApiError> {
    let draw = &mut |prefix: &'static str| history.draw(prefix);
    let mut given = Vec::with_capacity(create.input.len());
    for (at, item) in create.input.iter().enumerate() {
        given.push(match item {
            Given::Reference(reference) => Own::Named(Id::parse(&reference.0).map_err(|_no_id| no_item(&reference.0))?),
            Given::Item(item) => Own::Whole(name(item.clone(), &format!("input[{at}].id"), draw)?),
        });
    }
    if names.previous.is_none() && names.conversation.is_none() && given.iter().all(|it| matches!(it, Own::Whole(_))) {
        let whole = |it: Own| if let Own::Whole(item) = it { Some(item) } else { None };
        return Ok(Material { context: Vec::new(), own: given.into_iter().filter_map(whole).collect() });
    }
    let (owner, ids) = (owner.clone(), names.clone());
    let read = history.read(move |rows| material(rows, &owner, &ids, &given, bytes_max)).await?;
    read.map_err(|error| names.blame(error))
}

/// One item of the input.
enum Own {
    Whole(Object),
    Named(Id),
}

fn material(
    rows: &dyn Rows,
    owner: &Owner,
    names: &Names,
    given: &[Own],
    bytes_max: u64,
) -> Result<Material, HistoryError> {
    let mut material = Material::default();
    let mut own = Vec::with_capacity(given.len());
    for item in given {
        own.push(match item {
            Own::Whole(item) => item.clone(),
            Own::Named(id) => referenced(rows, owner, names, id)?,
        });
    }
    material.own = own;
    material.context = context(rows, owner, names, bytes_max)?;
    Ok(material)
}

/// What came before.
pub(super) fn context(
    rows: &dyn Rows,
    owner: &Owner,
    names: &Names,
    bytes_max: u64,
) -> Result<Vec<Object>, HistoryError> {
    let items = match (&names.previous, &names.conversation) {
        (Some(previous), _) => {
            if !read::response(rows, owner, previous)?.0.status.is_end() {
                return Err(Refusal::Unfinished(previous.clone()).into());
            }
            read::chain(rows, owner, previous, bytes_max)?
        }
        (None, Some(conversation)) => all_of(rows, owner, conversation, bytes_max)?,
        (None, None) => Vec::new(),
    };
    Ok(stored::objects(&items).map_err(Missing::from)?)
}

fn all_of(rows: &dyn Rows, owner: &Owner, conversation: &Id, bytes_max: u64) -> Result<Vec<Item>, Missing> {
    if read::conversation(rows, owner, conversation)?.bytes > bytes_max {
        return Err(Missing::TooLarge(bytes_max));
    }
    read::conversation_items(rows, owner, conversation, &Page { after: None, is_back: false, most: usize::MAX })
}

fn referenced(rows: &dyn Rows, owner: &Owner, names: &Names, id: &Id) -> Result<Object, Missing> {
    let kept = names.conversation.as_ref().map(|it| read::conversation_item(rows, owner, it, id));
    let item = match kept {
        Some(Ok(item)) => item,
        Some(Err(Missing::NotFound(_))) | None => read::item(rows, owner, id)?,
        Some(Err(error)) => return Err(error),
    };
    Ok(stored::objects(std::slice::from_ref(&item))?.pop().unwrap_or_default())
}

fn no_item(id: &str) -> ApiError {
    ApiError::NoRecord { what: "item", id: id.chars().take(Id::LEN_MAX).collect(), param: Some("input") }
}

/// An item with its name. `field`: where the client's own name for it is.
pub(in crate::api) fn name(
    item: Object,
    field: &str,
    draw: &mut dyn FnMut(&'static str) -> Id,
) -> Result<Object, ApiError> {
    let (id, item) = named(item, &mut |prefix| draw(prefix).to_string());
    let expected = "a name of 1 to 96 letters, digits, `-` and `_`, or left out";
    Id::parse(&id).map_err(|_invalid: InvalidName| Unfit::invalid(field, expected))?;
    Ok(item)
}
