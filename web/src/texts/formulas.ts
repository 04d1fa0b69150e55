/** Formulas, which are the same in every language. */

export const formulas = {
  'formula.contours': 'p(x; σ) = 1/N Σᵢ N(x; xᵢ, σ² I)',
  'formula.field': '∇ log p(x; σ) = (D(x; σ) − x) / σ²',
  'formula.view': 'x / √(1 + σ²)',
  'formula.start': 'x_T = μ + L z,  L Lᵀ = Cov + σ² I,  z ~ N(0, I)',
  'formula.rho': 'σ(t) = (σ_min^(1/ρ) + t (σ_max^(1/ρ) − σ_min^(1/ρ)))^ρ',
  'formula.guidance': 'D_w = D + w (D_c − D)',
  'formula.target': 'p_w(x) ∝ p(x|c) p(c|x)^(w − 1)',
  'formula.denoiser': 'D(x; σ) = Σᵢ wᵢ xᵢ,  wᵢ ∝ exp(−|x − xᵢ|² / 2σ²)',
  'formula.solver': 'dx/dσ = (x − D(x; σ)) / σ',
  'formula.schedule': 'σ₀ = σ_max > σ₁ > … > σ_min > 0',
  'formula.time': 'x = x₀ + σ ε',
  'formula.train.loss': 'L = E w(σ) |D(x₀ + σ ε; σ) − x₀|²,  ε ~ N(0, I)',
  'formula.train.ema_decay': 'θ̄ ← β θ̄ + (1 − β) θ',
  'formula.w2': 'W₂² = min over π of 1/N Σᵢ |aᵢ − b_π(i)|²',
  'formula.error': '√(1/B Σᵢ |xᵢ − xᵢ*|²)',
};
