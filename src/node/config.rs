//! What a node is told about itself: where its data, logs, metrics and traces go.

crate::config! {
    /// The process.
    pub struct Config in "node" {
        /// Where this node keeps what must survive a restart: what the admin API changed, keys sealed. Default: `./smg-data/<port>`,
        /// made by the first change. A directory named here is made at start. `none`: changes hold until the restart.
        "data-dir" => data_dir: Option<String> = None,
        /// Name of this node in logs, traces and metrics. Default: the host's name.
        "node-name" => node_name: Option<String> = None,
        /// Address of the metrics listener.
        "prometheus-host" => prometheus_host: String = "0.0.0.0".to_owned(),
        /// TCP port of the metrics listener (`/metrics`); 0 turns it off.
        "prometheus-port" => prometheus_port: u16 = 29_000,
        /// Least severe level that is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives such as
        /// `info,smg::workers=debug`.
        "log-level" => log_level: String = "info".to_owned(),
        /// Logs are JSON objects, one a line, instead of text.
        "log-json" => log_json: bool = false,
        /// OTLP/HTTP collector for traces, e.g. `http://localhost:4318`. None: no traces are made.
        "otlp-traces-endpoint" => otlp_traces_endpoint: Option<String> = None,
        /// Share of requests that are traced when the caller has not decided, from 0 to 1.
        "trace-sample-ratio" => trace_sample_ratio: f64 = 1.0,
        /// Admins can make this node fail on purpose: `smg chaos`, `/admin/chaos`. For labs; not while others rely on the node.
        "chaos" => chaos: bool = false,
    }
}
