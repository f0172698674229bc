package resource

// Resiliency is policies, and what they are for.
type Resiliency struct {
	Resource
	Spec ResiliencySpec
}

// ResiliencySpec is Dapr's.
type ResiliencySpec struct {
	Policies struct {
		Timeouts        map[string]string         `yaml:"timeouts"`
		Retries         map[string]Retry          `yaml:"retries"`
		CircuitBreakers map[string]CircuitBreaker `yaml:"circuitBreakers"`
	} `yaml:"policies"`
	Targets struct {
		Apps       map[string]PolicyNames          `yaml:"apps"`
		Actors     map[string]PolicyNames          `yaml:"actors"`
		Components map[string]ComponentPolicyNames `yaml:"components"`
	} `yaml:"targets"`
}

// Retry is when and how often something is tried again.
type Retry struct {
	Policy      string `yaml:"policy"` // constant or exponential
	Duration    string `yaml:"duration"`
	MaxInterval string `yaml:"maxInterval"`
	MaxRetries  *int   `yaml:"maxRetries"` // -1 for ever
	Matching    struct {
		HTTPStatusCodes string `yaml:"httpStatusCodes"`
		GRPCStatusCodes string `yaml:"gRPCStatusCodes"`
	} `yaml:"matching"`
}

// CircuitBreaker is when something is not tried for a while.
type CircuitBreaker struct {
	MaxRequests int    `yaml:"maxRequests"`
	Interval    string `yaml:"interval"`
	Timeout     string `yaml:"timeout"`
	Trip        string `yaml:"trip"`
}

// PolicyNames are the policies of one target.
type PolicyNames struct {
	Timeout                 string `yaml:"timeout"`
	Retry                   string `yaml:"retry"`
	CircuitBreaker          string `yaml:"circuitBreaker"`
	CircuitBreakerScope     string `yaml:"circuitBreakerScope"` // of actors
	CircuitBreakerCacheSize int    `yaml:"circuitBreakerCacheSize"`
}

// ComponentPolicyNames are those of a component, by direction.
type ComponentPolicyNames struct {
	Inbound  PolicyNames `yaml:"inbound"`
	Outbound PolicyNames `yaml:"outbound"`
}
