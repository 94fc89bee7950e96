from speechloom.training.spec import LearnerSpec

LEARNER = LearnerSpec(
    id="toy",
    implementation="speechloom_toy.learner:ToyLearner",
    summary="A voice of four numbers, by packing spectra and unpacking them",
    requires=("torch>=2.6",),
)
