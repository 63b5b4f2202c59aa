"""Fine-tuning, and the run that it returns."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["CheckpointError", "TrainingError", "last_step", "writing"],
        "examples": ["ExampleError", "VALIDATION", "check_examples", "data_hash"],
        "finetuning": ["batch_costs", "finetune", "untrained"],
        "methods": ["load_base"],
        "own_data": ["DataFaults", "TrainingFaults", "prepare"],
        "own_run": [
            "OwnRun",
            "OwnRunError",
            "run_identity",
            "run_state",
            "train_own_data",
        ],
        "preferences": ["prompt_text", "quietly", "trl_options"],
        "run": ["Run", "RunError", "load_run"],
        "settings": ["Settings", "SettingsError"],
        "trainer": ["Batches", "POOL", "make_trainer", "quick_attention", "supervised_loss"],
    },
)
