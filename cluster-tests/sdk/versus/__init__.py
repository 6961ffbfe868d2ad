"""The same requests to a simulated worker and to the real vLLM: what is asked, what is looked at, and which differences may be."""
