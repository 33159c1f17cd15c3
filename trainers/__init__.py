"""Programs that train, evaluate and attack classifiers by recipes, in run directories.

    python -m trainers.train    --recipe=digits/trades --output_dir=runs/digits
    python -m trainers.evaluate --run=runs/digits --attacks=pgd,fgsm
    python -m trainers.attack   --run=runs/digits --attack=pgd --output_dir=runs/digits/attacked
    python -m trainers.demo     --output_dir=runs/demo

They consist of flags and flow; the functions that they call are in `keras_robust.experiments`.
"""
