//! Which secret or certificate makes this node a member, and what to say when there is none.

use std::path::Path;
use std::path::PathBuf;

use super::MeshError;
use super::config::Config;
use crate::base::ids::NodeId;
use crate::base::seal::parse_key;
use crate::transport::trust::MeshSecret;
use crate::transport::trust::PkiFiles;
use crate::transport::trust::Purpose;
use crate::transport::trust::Trust;

/// Looked for in the data directory.
const SECRET_FILE: &str = "mesh.secret";
/// Longest secret file read: some dozens of secrets.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// What the options say of trust, before this node's name is known.
#[derive(Debug)]
pub(super) enum Source {
    Files(PkiFiles),
    Secrets(Vec<MeshSecret>),
}

impl Source {
    /// From PKI files, else options, else files with secrets, else the development secret where it is allowed.
    pub(super) fn of(config: &Config, data: &Path) -> Result<Self, MeshError> {
        if let (Some(ca), Some(cert), Some(key)) = (&config.mesh_ca_file, &config.mesh_cert_file, &config.mesh_key_file)
        {
            let files = PkiFiles { authority: ca.into(), certificate: cert.into(), key: key.into() };
            return Ok(Self::Files(files));
        }
        if !config.mesh_secret.is_empty() {
            return Ok(Self::Secrets(config.mesh_secret.clone()));
        }
        let default = data.join(SECRET_FILE);
        let file = config.mesh_secret_file.as_ref().map(PathBuf::from).or_else(|| default.exists().then_some(default));
        if let Some(file) = file {
            return read(&file).map(Self::Secrets);
        }
        if !is_all_loopback(config) && !config.mesh_insecure {
            return Err(MeshError::NoSecret);
        }
        if config.mesh_insecure {
            tracing::warn!("the mesh has no secret: whoever reaches its port is a member");
        } else {
            tracing::info!("the mesh is on loopback and has no secret: the development secret is used");
        }
        Ok(Self::Secrets(vec![MeshSecret::development()]))
    }

    /// Keys that seal credentials on their way to other nodes: the first seals, all open.
    pub(super) fn seal_keys(&self, config: &Config) -> Result<Vec<[u8; 32]>, MeshError> {
        if let Some(file) = &config.seal_key_file {
            let fail = |reason: String| MeshError::SealKeyFile { path: file.into(), reason };
            let text = std::fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
            let key = parse_key(text.trim()).ok_or_else(|| fail("expected 64 hex digits".to_owned()))?;
            return Ok(vec![key]);
        }
        match self {
            Self::Files(_) => Err(MeshError::NoSealKey),
            Self::Secrets(secrets) => {
                Ok(secrets.iter().map(|it| it.derive(Purpose::Seal, &config.cluster_name)).collect())
            }
        }
    }

    /// The certificate that this node shows.
    pub(super) fn trust(self, config: &Config, node: NodeId) -> Result<Trust, MeshError> {
        let cluster = config.cluster_name.clone();
        Ok(match self {
            Self::Files(files) => Trust::from_files(cluster, &files)?,
            Self::Secrets(secrets) => Trust::from_secrets(cluster, node, &secrets)?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<MeshSecret>, MeshError> {
    let fail = |reason: String| MeshError::SecretFile { path: path.to_owned(), reason };
    let len = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if len > SECRET_FILE_BYTES_MAX {
        return Err(fail(format!("it has {len} bytes, expected at most {SECRET_FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let lines = text.lines().filter(|it| !it.trim().is_empty());
    let secrets = lines.map(MeshSecret::parse).collect::<Result<Vec<_>, _>>();
    match secrets.map_err(|error| fail(error.to_string()))? {
        none if none.is_empty() => Err(fail("it is empty; `smg mesh secret` prints one".to_owned())),
        secrets => Ok(secrets),
    }
}

/// Whether neither this node nor a seed can be reached from another machine.
fn is_all_loopback(config: &Config) -> bool {
    let is_loopback = |host: &str| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        address.map_or(host == "localhost", |it| it.is_loopback())
    };
    let seeds = config.seeds.iter().map(|it| it.rsplit_once(':').map_or(it.as_str(), |(host, _)| host));
    let hosts = seeds.chain([config.mesh_host.as_str()]).chain(config.mesh_advertise_host.as_deref());
    hosts.into_iter().all(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(host: &str, seeds: &[&str]) -> Config {
        let seeds = seeds.iter().map(|it| (*it).to_owned()).collect();
        Config { ha_mesh: true, mesh_host: host.to_owned(), seeds, ..Config::default() }
    }

    fn secrets(config: &Config, data: &Path) -> Vec<MeshSecret> {
        match Source::of(config, data).expect("there is one") {
            Source::Secrets(secrets) => secrets,
            Source::Files(_) => panic!("no files were named"),
        }
    }

    #[test]
    fn without_a_secret_only_loopback_is_trusted() {
        let data = tempfile::tempdir().expect("a directory");
        let known = vec![MeshSecret::development()];
        for (host, seeds) in [("127.0.0.1", vec![]), ("::1", vec!["localhost:1", "127.0.0.9:2", "[::1]:3"])] {
            assert_eq!(secrets(&config(host, &seeds), data.path()), known);
        }
        for (host, seeds) in [("0.0.0.0", vec![]), ("127.0.0.1", vec!["10.0.0.2:30001"]), ("10.0.0.1", vec![])] {
            let error = Source::of(&config(host, &seeds), data.path()).expect_err("refused");
            assert!(matches!(error, MeshError::NoSecret) && error.is_usage(), "{error}");
            let said = error.to_string();
            assert!(said.contains("\n  smg mesh secret >") && said.contains("\n  smg --ha-mesh"), "{said}");
        }
        let insecure = Config { mesh_insecure: true, ..config("0.0.0.0", &[]) };
        assert_eq!(secrets(&insecure, data.path()), known);
    }

    #[test]
    fn a_secret_of_an_option_wins_over_a_named_file_and_that_over_the_data_directory() {
        let data = tempfile::tempdir().expect("a directory");
        let [given, named, lying] = std::array::from_fn(|_| MeshSecret::generate());
        std::fs::write(data.path().join(SECRET_FILE), lying.expose()).expect("is written");
        let mut config = config("0.0.0.0", &[]);
        assert_eq!(secrets(&config, data.path()), std::slice::from_ref(&lying));
        let file = data.path().join("named");
        std::fs::write(&file, format!("{}\n\n{}\n", named.expose(), lying.expose())).expect("is written");
        config.mesh_secret_file = Some(file.display().to_string());
        assert_eq!(secrets(&config, data.path()), [named, lying]);
        config.mesh_secret = vec![given.clone()];
        assert_eq!(secrets(&config, data.path()), [given]);
    }

    #[test]
    fn a_file_without_a_sound_secret_is_named_and_not_quoted() {
        let data = tempfile::tempdir().expect("a directory");
        let file = data.path().join("secret");
        let config = Config { mesh_secret_file: Some(file.display().to_string()), ..config("0.0.0.0", &[]) };
        for text in [None, Some(""), Some("canary"), Some("smg1-canary")] {
            text.inspect(|it| std::fs::write(&file, it).expect("is written"));
            let error = Source::of(&config, data.path()).expect_err("refused").to_string();
            assert!(error.contains("/secret`") && !error.contains("canary"), "{error}");
        }
    }
}
