"""The differences that may be: a pattern of `request | difference`, and why. One that nothing matches any more fails as well."""

JUSTIFIED: dict[str, str] = {
    r"^families \| families\.vllm:[a-z_]+: only vllm$":
        "The simulator shows the meters that say how loaded a worker is and what its cache gives; of the others, which concern vLLM's own "
        "inside (scheduler times, FLOPs, multimodal and external caches, parsers), no router takes a decision.",
    r"^families \| families\.vllm:cache_config_info: ":
        "Of vLLM's thirty-one settings the simulator has two that mean something to it: block_size and num_gpu_blocks.",
    r"with token ids|token ids( streamed)? \| |^text echoed streamed \| body\.choice 0: 2 forms sim, 3 vllm":
        "The simulator has no vocabulary: its ids would say nothing. It answers null where return_token_ids asks for them, and in the first "
        "event of an echoed stream, where vLLM tells the prompt's ids unasked.",
    r"^(body|prompt) .* \| body\.error\.param: body(\.messages)? sim, body":
        "For a body that does not read, vLLM names the place as pydantic words it, alternatives included; the simulator says `body`. "
        "Status, type and code are equal.",
}
