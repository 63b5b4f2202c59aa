"""Fine-tuning, and the run that it returns."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": ["load_base"],
        "conversations": ["VALIDATION", "check_examples", "data_hash"],
        "finetuning": ["finetune", "untrained"],
        "inspection": ["batch_costs", "batches"],
        "logs": ["read_logs"],
        "methods": ["METHODS", "table"],
        "outcome": ["Answer", "Outcome", "first_difference", "is_exact", "is_short"],
        "own_data": ["DataFaults", "TrainingFaults", "prepare"],
        "own_folder": ["last_step", "recipe", "state"],
        "own_run": ["OwnRun", "carry_out"],
        "run": ["Run"],
        "saved_run": ["load_run"],
        "settings": ["PRECISIONS", "Settings", "SettingsError"],
        "speech": ["control_tokens", "grow_embeddings", "teach_tokens"],
        "step": ["Batches", "POOL", "quick_attention", "supervised_loss"],
        "trainer": ["make_trainer"],
    },
)
