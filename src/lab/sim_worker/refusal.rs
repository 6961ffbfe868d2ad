//! Refusals, in the envelope of the server that is imitated.

use http::StatusCode;
use serde_json::Value;
use serde_json::json;

use super::options::Personality;

/// Why a request is not answered. Always the caller's fault but for `Busy` and `Broken`, which are simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The body is not what the endpoint reads.
    #[error("{0}")]
    Malformed(String),
    /// The body lacks a field that the endpoint needs.
    #[error("1 validation error: body, {0}: Field required")]
    Missing(&'static str),
    /// The body reads, but asks for something impossible.
    #[error("{message}")]
    Impossible {
        /// What is wrong.
        message: String,
        /// The field it is about, where the engine names it.
        param: Option<&'static str>,
    },
    /// No such model.
    #[error("The model `{0}` does not exist.")]
    UnknownModel(String),
    /// No such path.
    #[error("Not Found")]
    UnknownPath,
    /// The path exists, the method does not.
    #[error("Method Not Allowed")]
    WrongMethod,
    /// The key is missing or wrong.
    #[error("Unauthorized")]
    Unauthorized,
    /// The server was not started for this.
    #[error("This server does not support embeddings. Start it with `--embeddings`")]
    Unsupported,
    /// Too much is waiting, or a fault says so.
    #[error("the server is overloaded")]
    Busy(u16),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Missing(_) | Self::Impossible { .. } => StatusCode::BAD_REQUEST,
            Self::UnknownModel(_) | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Busy(status) => StatusCode::from_u16(*status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The body, as `engine` words it.
    pub(super) fn render(&self, engine: Personality) -> Vec<u8> {
        if *self == Self::UnknownPath && engine == Personality::Ollama {
            return b"404 page not found".to_vec();
        }
        let body = match engine {
            Personality::Vllm | Personality::TrtLlm => self.vllm(),
            Personality::Sglang => self.sglang(),
            Personality::LlamaCpp => self.llama_cpp(),
            Personality::Ollama => self.ollama(),
        };
        body.to_string().into_bytes()
    }

    fn vllm(&self) -> Value {
        let code = self.status().as_u16();
        let (kind, param) = match self {
            Self::UnknownPath | Self::WrongMethod => return json!({"detail": self.to_string()}),
            Self::Unauthorized => return json!({"error": "Unauthorized"}),
            Self::Malformed(_) => ("Bad Request", Some("body".to_owned())),
            Self::Missing(field) => ("Bad Request", Some(format!("body.{field}"))),
            Self::Impossible { param, .. } => ("BadRequestError", param.map(str::to_owned)),
            Self::UnknownModel(_) => ("NotFoundError", Some("model".to_owned())),
            Self::Unsupported => ("NotImplementedError", None),
            Self::Busy(429) => ("TooManyRequestsError", None),
            Self::Busy(500) => ("InternalServerError", None),
            Self::Busy(_) => ("ServiceUnavailableError", None),
        };
        json!({"error": {"message": self.to_string(), "type": kind, "param": param, "code": code}})
    }

    fn sglang(&self) -> Value {
        let kind = match self {
            Self::UnknownPath | Self::WrongMethod => return json!({"detail": self.to_string()}),
            Self::Unauthorized => return json!({"error": "Unauthorized"}),
            Self::Malformed(_) | Self::Missing(_) | Self::Impossible { .. } => "BadRequestError",
            Self::UnknownModel(_) => "NotFoundError",
            Self::Unsupported => "NotImplementedError",
            Self::Busy(_) => "ServiceUnavailableError",
        };
        let code = self.status().as_u16();
        json!({"object": "error", "message": self.to_string(), "type": kind, "param": null, "code": code})
    }

    fn llama_cpp(&self) -> Value {
        let (kind, message) = match self {
            Self::UnknownPath | Self::WrongMethod => ("not_found_error", "File Not Found".to_owned()),
            Self::Unauthorized => ("authentication_error", "Invalid API Key".to_owned()),
            Self::Malformed(_) | Self::Missing(_) | Self::Impossible { .. } => {
                ("invalid_request_error", self.to_string())
            }
            Self::UnknownModel(_) => ("not_found_error", self.to_string()),
            Self::Unsupported => ("not_supported_error", self.to_string()),
            Self::Busy(_) => ("unavailable_error", self.to_string()),
        };
        json!({"error": {"message": message, "type": kind, "code": self.status().as_u16()}})
    }

    fn ollama(&self) -> Value {
        let message = match self {
            Self::UnknownModel(model) => format!("model '{model}' not found"),
            other => other.to_string(),
        };
        let kind = if self.status().is_client_error() { "invalid_request_error" } else { "api_error" };
        json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
    }
}
