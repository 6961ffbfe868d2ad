"""Who is compared, with the command lines that are printed beside the table."""

import os

NGINX = """
worker_processes auto; pid {home}/nginx.pid; error_log {home}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 64k; keepalive_requests 1000000;
  client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home}; uwsgi_temp_path {home}; scgi_temp_path {home};
  upstream workers {{ {servers} keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://workers; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering on;
    }}
  }}
}}
"""


class Contender:
    """A gateway with a policy. `gateway` groups policies of one product; `policy` is "" for the floor."""

    def __init__(self, gateway, policy, command):
        self.gateway, self.policy, self.make = gateway, policy, command
        self.name = f"{gateway} {policy}".strip()

    def command(self, port, workers, home):
        return self.make(self.policy, port, workers, home)


def nginx(binary):
    def command(_policy, port, workers, home):
        path = os.path.join(home, "nginx.conf")
        servers = " ".join(f"server 127.0.0.1:{url.rsplit(':', 1)[1]};" for url in workers)
        with open(path, "w") as file:
            file.write(NGINX.format(home=home, servers=servers, port=port))
        return [binary, "-p", home, "-c", path, "-g", "daemon off;"]

    return command


def router(*start):
    """The routers' common command line."""

    def command(policy, port, workers, _home):
        return [
            *start, "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *workers, "--policy", policy,
            "--prometheus-port", str(port + 1),
        ]

    return command


def all_contenders(ours, nginx_binary, venvs):
    """In the order in which they take turns."""
    peer = lambda name, binary: os.path.join(venvs, f"peer-{name}", "bin", binary)
    vllm = router(peer("vllm-router-0.1.17", "vllm-router"))
    sglang = router(peer("sglang-router-0.3.2", "sglang-router"), "launch")
    old, new = (router(peer(f"smg-{version}", "smg"), "launch") for version in ("0.4.0", "1.13.0"))
    return [
        Contender("nginx", "", nginx(nginx_binary)),
        Contender("vllm-router 0.1.17", "round_robin", vllm),
        Contender("vllm-router 0.1.17", "cache_aware", vllm),
        Contender("sglang-router 0.3.2", "cache_aware", sglang),
        Contender("smg 0.4.0", "round_robin", old),
        Contender("smg 0.4.0", "cache_aware", old),
        Contender("smg 1.13.0", "round_robin", new),
        Contender("smg 1.13.0", "cache_aware", new),
        Contender("ours", "round_robin", router(ours)),
        Contender("ours", "cache_aware", router(ours)),
    ]
