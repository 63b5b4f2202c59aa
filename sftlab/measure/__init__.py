"""What a model can do, and how sure we are: probes, metrics, intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "code_eval": ["run_code"],
        "intervals": ["COMPUTED", "CONSTANT", "NO_INTERVAL", "components", "detectable"],
        "judging": ["JudgeError", "LikelihoodJudge", "PromptJudge", "judge_pairs"],
        "memorization": ["code_log_likelihoods", "outscored", "probe_secrets", "threshold"],
        "metrics": ["LOCAL_METRICS"],
        "stats": [
            "Estimate",
            "Share",
            "computed",
            "difference",
            "equivalent",
            "mean",
            "percent",
            "share",
        ],
        "structured": ["complete_within", "schema_pattern"],
        "forgetting": ["items", "read_meter", "subjects", "summary"],
        "format_probes": [
            "capture_warnings",
            "probe_code",
            "probe_template",
            "reply",
        ],
        "generation": ["behind_prompt", "complete", "few_shot", "generate", "with_bos"],
        "likelihood": [
            "probe_choices",
            "probe_forced",
            "row_logits",
            "text_features",
            "text_loss",
            "token_losses",
        ],
        "safety": ["outcome", "probe_prefill", "probe_requests"],
        "probes": [
            "ANSWERED",
            "CONTINUED",
            "OTHER",
            "is_right",
            "probe_facts",
            "probe_questions",
            "probe_two_hops",
            "probe_variety",
        ],
    },
)
